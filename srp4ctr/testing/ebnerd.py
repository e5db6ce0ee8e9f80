"""Reads EB-NeRD: five weeks of a newspaper's impressions, clicks and reads.

It is for research and not ours to pass on: it is read from the folder ``SRP4CTR_DATA``.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from srp4ctr.streams.events.schema import (
    Behavior,
    Click,
    Impression,
    ItemUpdate,
    UserEvent,
)

DATA = Path(os.environ.get("SRP4CTR_DATA", "../shared/data"))
STREAM = DATA / "ebnerd_demo" / "ebnerd_demo_event_stream.parquet"
PARTS = {
    part: DATA / "ebnerd_demo" / f"demo_{part}_behaviors.parquet"
    for part in ("train", "validation")
}
ARTICLES = DATA / "ebnerd_demo" / "ebnerd_article_premium_length.parquet"
# What the newspaper knows of a reader and a page when it shows a list.
CONTEXT = ("device_type", "is_subscriber", "is_sso_user", "gender", "age", "postcode")
IDS = ("impression_id", "user_id", "item_id")


def impressions_and_clicks() -> Iterator[Impression | Click]:
    """Yield the impressions and clicks in the order of their times."""
    table = pq.read_table(STREAM)
    table = table.filter(pc.not_equal(table["behavior"], "read"))
    ids = (table[name].cast("string").to_pylist() for name in IDS)
    plain = (table[name].to_pylist() for name in ("behavior", "ts_ms", "position"))
    for kind, at_ms, position, request, user, item in zip(*plain, *ids, strict=True):
        shared = {"request_id": request, "user_id": user, "item_id": item}
        if kind == "click":
            yield Click(event_id="c", occurred_at=at_ms, **shared)
        else:
            yield Impression(event_id="i", occurred_at=at_ms, position=position, **shared)


def reads() -> Iterator[Behavior]:
    """Yield what users read before the train week.

    Later reads are known of the train week only, and hold each of its clicks once more: a
    model would learn from them what the validation week does not have. How long was read
    is known too late to be used.
    """
    table = pq.read_table(STREAM, columns=["behavior", "ts_ms", "user_id", "item_id"])
    is_read = pc.equal(table["behavior"], "read")
    table = table.filter(pc.and_(is_read, pc.less(table["ts_ms"], began_ms("train"))))
    ids = (table[name].cast("string").to_pylist() for name in ("user_id", "item_id"))
    for at_ms, user, item in zip(table["ts_ms"].to_pylist(), *ids, strict=True):
        yield Behavior(
            event_id="r", user_id=user, item_id=item, action="read", occurred_at=at_ms
        )


def item_updates() -> list[ItemUpdate]:
    """Return the articles' attributes: for subscribers alone or not, and how long it is.

    Lengths within a factor of the square root of two are one value. The file says neither
    when an article appeared nor whether it was changed later.
    """
    if not ARTICLES.is_file():
        raise ValueError(f"there is no {ARTICLES}: set SRP4CTR_DATA to where EB-NeRD is")
    table = pq.read_table(ARTICLES)
    ids, letters, premium = (
        table[name].to_pylist() for name in ("article_id", "article_length", "premium")
    )
    return [
        ItemUpdate(
            event_id="u",
            item_id=str(article),
            occurred_at=0,
            attributes={
                "premium": str(is_premium),
                "length": str(round(2.0 * math.log2(1 + length))),
            },
        )
        for article, length, is_premium in zip(ids, letters, premium, strict=True)
    ]


def began_ms(part: str) -> int:
    """Return when the train or validation week begins."""
    column = pq.read_table(PARTS[part], columns=["impression_time"])[0]
    return int(np.datetime64(pc.min(column).as_py(), "ms").astype(int))


def events() -> list[UserEvent]:
    """Return all events, with each request's context; ValueError: a file is missing."""
    for needed in (STREAM, *PARTS.values()):
        if not needed.is_file():
            raise ValueError(f"there is no {needed}: set SRP4CTR_DATA to where EB-NeRD is")
    contexts = _contexts()
    shown = (
        # The file's order is not the page's: a position says nothing.
        msgspec.structs.replace(event, context=contexts.get(event.request_id), position=0)
        if isinstance(event, Impression)
        else event
        for event in impressions_and_clicks()
    )
    return [*shown, *reads()]


def _contexts() -> dict[str, dict[str, str]]:
    """Return the context of each request: the reader's device and standing, the page."""
    columns = ["impression_id", "article_id", *CONTEXT]
    found: dict[str, dict[str, str]] = {}
    for path in PARTS.values():
        for row in pq.read_table(path, columns=columns).to_pylist():
            known = {name: row[name] for name in CONTEXT if row[name] is not None}
            page = "front" if row["article_id"] is None else "article"
            context = {name: json.dumps(value) for name, value in known.items()}
            found[str(row["impression_id"])] = context | {"page": page}
    return found
