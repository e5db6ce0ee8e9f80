"""Reads MovieLens-1M as CoLLM split it: a rating is an impression, one above 3 a click.

The files name no genre: an item has the year in its title. Ratings of one user and second
are one request, so that none of them knows of another.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from srp4ctr.streams.events.schema import Impression, ItemUpdate, UserEvent
from srp4ctr.testing.raw_logs import click_on

FOLDER = "collm_ml1m"
PARTS = ("train", "valid", "test")


def events(folder: Path) -> Iterator[UserEvent]:
    """Yield the impressions and clicks of all parts; ValueError: a file is missing."""
    for part in PARTS:
        if not (folder / f"{part}.parquet").is_file():
            raise ValueError(f"there is no {folder / part}.parquet: set SRP4CTR_DATA")
        columns = ["uid", "iid", "label", "timestamp"]
        rows = pd.read_parquet(folder / f"{part}.parquet", columns=columns)
        for uid, iid, label, at_s in rows.itertuples(index=False):
            shown = Impression(
                event_id="i",
                request_id=f"{uid}-{at_s}",
                user_id=str(uid),
                item_id=str(iid),
                position=0,
                occurred_at=int(at_s) * 1000,
            )
            yield shown
            if label:
                yield click_on(shown, shown.occurred_at + 1, "c")


def item_updates(folder: Path) -> list[ItemUpdate]:
    """Return each film's year, known from the beginning."""
    rows = pd.read_parquet(folder / "items.parquet", columns=["iid", "title"])
    years = rows["title"].str.extract(r"\((\d{4})\)", expand=False)
    return [
        ItemUpdate(
            event_id="u", item_id=str(iid), occurred_at=0, attributes={"year": str(year)}
        )
        for iid, year in zip(rows["iid"], years, strict=True)
        if year == year
    ]


def began_ms(folder: Path, part: str) -> int:
    """Return when ``part`` of ``PARTS`` begins."""
    return int(pd.read_parquet(folder / f"{part}.parquet")["timestamp"].min()) * 1000
