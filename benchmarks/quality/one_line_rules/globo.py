"""Reads clicks of a news portal: nothing says which articles were shown.

For academic use: the files are read from the folder ``SRP4CTR_DATA``.
"""

from pathlib import Path

import pandas as pd

from srp4ctr.streams.events.schema import Click, ItemUpdate, UserEvent

CLICKS = Path("globo") / "clicks_hours_0_128.parquet"
CATEGORIES = Path("globo") / "article_category.parquet"
HOUR_MS = 3_600_000


def table(folder: Path, hours: float) -> pd.DataFrame:
    """Return user_id, click_article_id and click_timestamp of the first ``hours``, by time.

    Raises ``ValueError`` if a file is missing.
    """
    for path in (folder / CLICKS, folder / CATEGORIES):
        if not path.is_file():
            raise ValueError(f"there is no {path}: set SRP4CTR_DATA")
    columns = ["user_id", "click_article_id", "click_timestamp"]
    clicks = pd.read_parquet(folder / CLICKS, columns=columns)
    clicks = clicks.sort_values("click_timestamp", kind="stable", ignore_index=True)
    end_ms = clicks["click_timestamp"].iloc[0] + round(hours * HOUR_MS)
    return clicks[clicks["click_timestamp"] < end_ms]


def events(clicks: pd.DataFrame) -> list[UserEvent]:
    """Return the rows of ``table`` as events."""
    columns = (clicks[name].tolist() for name in clicks.columns)
    return [
        Click(
            event_id=f"c{number}",
            request_id=f"c{number}",
            user_id=str(user),
            item_id=str(article),
            occurred_at=at_ms,
        )
        for number, (user, article, at_ms) in enumerate(zip(*columns, strict=True))
    ]


def item_updates(folder: Path, clicks: pd.DataFrame) -> list[ItemUpdate]:
    """Return the category of each clicked article, known from the beginning."""
    categories = pd.read_parquet(folder / CATEGORIES)
    clicked = categories["article_id"].isin(clicks["click_article_id"].unique())
    rows = categories[clicked]
    return [
        ItemUpdate(
            event_id="u",
            item_id=str(article),
            occurred_at=int(clicks["click_timestamp"].iloc[0]) - 1,
            attributes={"category": str(category)},
        )
        for article, category in zip(rows["article_id"], rows["category_id"], strict=True)
    ]
