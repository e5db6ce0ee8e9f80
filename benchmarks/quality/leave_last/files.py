"""S3-Rec's files, or MovieLens' events → each user's behaviours, and 99 other items.

S3-Rec (Zhou et al., CIKM 2020) gives items in order, attributes of items, and the negatives
that everyone is compared by. Either its own text files, or the same as two Parquet files.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.quality.leave_last.leave_last_out import NEGATIVES, LeaveLast
from srp4ctr.demo import movielens
from srp4ctr.features.offline.point_in_time import UserHistories
from srp4ctr.features.tensors.arrays import SequenceArrays
from srp4ctr.streams.events.schema import Behavior, ItemUpdate, action_code, item_key

# The files hold only the order: one behaviour per day, so that the newest weigh more.
DAY_MS = 86_400_000
CLICK = action_code("click")
LEAST = 5  # behaviours of a user, as in a 5-core


def read(folder: Path, name: str) -> LeaveLast:
    """Return the data set ``name``: S3-Rec's files in ``folder``, or ``ml-100k``."""
    if name == "ml-100k":
        return movielens_100k(folder)
    if name == "kuairand":
        return kuairand(folder)
    if (folder / f"{name}.parquet").is_file():
        rows = pq.read_table(folder / f"{name}.parquet").to_pydict()
        sequences = dict(zip(rows["user_id"], rows["items"], strict=True))
        negatives = dict(zip(rows["user_id"], rows["test_neg_99"], strict=True))
        columns = pq.read_table(folder / f"{name}_item_attributes.parquet").to_pydict()
        profiles = dict(zip(columns["item_id"], columns["attributes"], strict=True))
    elif (folder / f"{name}.txt").is_file():
        sequences = _numbers(folder / f"{name}.txt")
        negatives = _numbers(folder / f"{name}_sample.txt")
        read_in = json.loads((folder / f"{name}_item2attributes.json").read_text())
        profiles = {int(item): values for item, values in read_in.items()}
    else:
        raise FileNotFoundError(f"neither {name}.parquet nor {name}.txt in {folder}")
    users = sorted(sequences)
    return LeaveLast(
        name=name,
        histories=_ordered([sequences[user] for user in users]),
        negatives=np.array([negatives[user] for user in users], dtype=np.int64),
        profiles={
            item: {"attribute": tuple(str(value) for value in values)}
            for item, values in profiles.items()
        },
    )


def movielens_100k(cache: Path) -> LeaveLast:
    """Return MovieLens-100K: ratings with times and stars; negatives drawn once."""
    events = movielens.read(movielens.fetch(cache))
    rated = [event for event in events if isinstance(event, Behavior)]
    rated.sort(key=lambda event: (int(event.user_id), event.occurred_at))
    users, counts = np.unique([int(event.user_id) for event in rated], return_counts=True)
    behaviors = SequenceArrays(
        item_keys=np.array([item_key(event.item_id) for event in rated]),
        action_codes=np.array([action_code(event.action) for event in rated]),
        occurred_at_ms=np.array([event.occurred_at for event in rated]),
        values=np.array([event.value for event in rated], dtype=np.float64),
    )
    profiles = {
        item_key(event.item_id): {k: _values(v) for k, v in event.kept_attributes().items()}
        for event in events
        if isinstance(event, ItemUpdate)
    }
    histories = UserHistories(
        user_ids=users.astype(str).astype(object),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        behaviors=behaviors,
    )
    items = np.unique(behaviors.item_keys)
    rng = np.random.default_rng(0)
    parts = zip(histories.starts[:-1], histories.starts[1:], strict=True)
    negatives = [
        rng.choice(np.setdiff1d(items, behaviors.item_keys[a:b]), NEGATIVES, replace=False)
        for a, b in parts
    ]
    return LeaveLast(
        name="ml-100k",
        histories=histories,
        negatives=np.array(negatives),
        profiles=profiles,
    )


def kuairand(folder: Path) -> LeaveLast:
    """Return KuaiRand-Pure: the videos that a user clicked, each once, by time.

    Users with at least ``LEAST`` of them; there are no negatives: all videos are ranked.
    """
    columns = ["user_id", "video_id", "time_ms"]
    clicks = pq.read_table(
        folder / "impressions_0425_0508.parquet",
        columns=columns,
        filters=[("is_click", "=", 1)],
    )
    users, videos, times = (clicks[name].to_numpy() for name in columns)
    order = np.lexsort((times, users))
    pairs = np.stack([users[order], videos[order]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    order = order[np.sort(first)]
    _, index, counts = np.unique(users[order], return_inverse=True, return_counts=True)
    order = order[counts[index] >= LEAST]
    known, counts = np.unique(users[order], return_counts=True)
    fields = ["video_id", "author_id", "tag", "upload_type"]
    rows = pq.read_table(folder / "items.parquet", columns=fields).to_pylist()
    return LeaveLast(
        name="kuairand",
        histories=UserHistories(
            user_ids=known.astype(str).astype(object),
            starts=np.concatenate([[0], np.cumsum(counts)]),
            behaviors=SequenceArrays(
                item_keys=videos[order] + 1,  # 0 pads
                action_codes=np.full(len(order), CLICK),
                occurred_at_ms=times[order],
                values=np.full(len(order), np.nan),
            ),
        ),
        negatives=np.zeros((len(known), 0), dtype=np.int64),
        profiles={
            row["video_id"] + 1: {n: str(row[n]) for n in fields[1:] if row[n]}
            for row in rows
        },
    )


def part_of(data: LeaveLast, users: int) -> LeaveLast:
    """Return the first ``users`` users: a fraction for a quick run."""
    kept = min(users, len(data.negatives))
    starts = data.histories.starts[: kept + 1]
    return replace(
        data,
        histories=UserHistories(
            user_ids=data.histories.user_ids[:kept],
            starts=starts,
            behaviors=data.histories.behaviors.take(slice(starts[-1])),
        ),
        negatives=data.negatives[:kept],
    )


def _ordered(sequences: Iterable[list[int]]) -> UserHistories:
    """Return sequences without times as histories: one behaviour per day, a click each."""
    lists = [np.array(sequence, dtype=np.int64) for sequence in sequences]
    counts = np.array([len(each) for each in lists])
    starts = np.concatenate([[0], np.cumsum(counts)])
    keys = np.concatenate(lists)
    places = np.arange(len(keys)) - np.repeat(starts[:-1], counts)
    return UserHistories(
        user_ids=np.arange(len(lists)).astype(str).astype(object),
        starts=starts,
        behaviors=SequenceArrays(
            item_keys=keys,
            action_codes=np.full(len(keys), CLICK),
            occurred_at_ms=(places + 1) * DAY_MS,
            values=np.full(len(keys), np.nan),
        ),
    )


def _values(value: str | list[str] | tuple[str, ...]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


def _numbers(path: Path) -> dict[int, list[int]]:
    """Return lines of numbers: the first is the user."""
    lines = [[int(x) for x in line.split()] for line in path.read_text().splitlines()]
    return {first: rest for first, *rest in lines}
