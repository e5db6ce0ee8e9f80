"""Reads KuaiRand-Pure: short videos in a feed, with what users watched before.

The logs of 25 Apr 2022 on are impressions; of before, only which videos a user met, in
order, and which of them were watched long: behaviours, spaced evenly. An outcome is an
event when it is known, not when the video is shown: a click means seconds of watching.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from srp4ctr.streams.events.schema import (
    Attributes,
    Behavior,
    Click,
    Impression,
    ItemUpdate,
    UserEvent,
    UserUpdate,
)

FOLDER = "kuairand_pure"
IMPRESSIONS, HISTORY, ITEMS, USERS = (
    f"{name}.parquet"
    for name in ("impressions_0425_0508", "history_to_0424", "items", "users")
)
BEGAN_MS = 1_649_347_200_000  # 8 Apr 2022 in China, where the histories begin
CLICK_MS = 7_000  # 95 of 100 clicks have at least as much watching
CHINA_MINUTES = "480"
# As many as a model finds by itself: those of few values, and the users' own numbers.
USER_FIELDS = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "register_days_range",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    *(f"onehot_feat{place}" for place in (0, 1, 2, 4, 5, 7, 8, 9, 11)),
)
ITEM_FIELDS = ("tag", "upload_type", "video_type", "music_type", "video_duration")


def events(folder: Path) -> list[UserEvent]:
    """Return all events, in no order; ValueError: a file is missing."""
    for name in (IMPRESSIONS, HISTORY, ITEMS, USERS):
        if not (folder / name).is_file():
            raise ValueError(f"there is no {folder / name}: set SRP4CTR_DATA")
    return [*_users(folder), *_histories(folder), *_shown(folder)]


def item_updates(folder: Path) -> list[ItemUpdate]:
    """Return the videos' attributes: the files say them once."""
    rows = pd.read_parquet(folder / ITEMS).to_dict("records")
    return [
        ItemUpdate(
            event_id="u",
            item_id=str(row["video_id"]),
            occurred_at=BEGAN_MS,
            attributes={
                name: str(value).split(",") if name == "tag" else str(value)
                for name in ITEM_FIELDS
                if not pd.isna(value := row[name])
            },
        )
        for row in rows
    ]


def judged_from_ms(folder: Path) -> int:
    """Return when the test days begin; 858 impressions of ``val`` are later, by a clock."""
    rows = pd.read_parquet(folder / IMPRESSIONS, columns=["split", "time_ms"])
    return int(rows[rows["split"] == "test"]["time_ms"].min())


def _users(folder: Path) -> Iterator[UserUpdate]:
    for row in pd.read_parquet(folder / USERS).to_dict("records"):
        known: Attributes = {
            name: str(row[name]) for name in USER_FIELDS if not pd.isna(row[name])
        }
        yield UserUpdate(
            event_id="p",
            user_id=str(row["user_id"]),
            occurred_at=BEGAN_MS,
            attributes=known,
        )


def _histories(folder: Path) -> Iterator[Behavior]:
    """Yield what each user met until 24 Apr, of which the files have the last 50."""
    for row in pd.read_parquet(folder / HISTORY).to_dict("records"):
        watched = set(row["long_watch_seq"].tolist())
        step = (row["last_time_ms"] - BEGAN_MS) // (row["history_len"] + 1)
        for back, video in enumerate(reversed(row["watch_seq"].tolist())):
            yield Behavior(
                event_id="h",
                user_id=str(row["user_id"]),
                item_id=str(video),
                action="long_view" if video in watched else "view",
                occurred_at=row["last_time_ms"] - back * step,
            )


def _shown(folder: Path) -> Iterator[UserEvent]:
    table = pd.read_parquet(folder / IMPRESSIONS)
    table = table.drop_duplicates(["user_id", "time_ms", "video_id"])
    for row in table.to_dict("records"):
        user, item, at_ms = str(row["user_id"]), str(row["video_id"]), row["time_ms"]
        request, watched_ms = f"{user}-{at_ms}", row["play_time_ms"]
        yield Impression(
            event_id="i",
            request_id=request,
            user_id=user,
            item_id=item,
            position=0,
            occurred_at=at_ms,
            context={"tab": str(row["tab"]), "utc_offset_minutes": CHINA_MINUTES},
        )
        if row["is_click"]:
            yield Click(
                event_id="c",
                request_id=request,
                user_id=user,
                item_id=item,
                occurred_at=at_ms + min(watched_ms, CLICK_MS),
            )
        if row["long_view"] or not row["is_click"]:
            yield Behavior(
                event_id="b",
                user_id=user,
                item_id=item,
                action="long_view" if row["long_view"] else "view",
                occurred_at=at_ms + watched_ms,
                value=watched_ms / 1000.0,
            )
