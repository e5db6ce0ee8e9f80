"""The raw log's newest files → who did something of late, and with which items.

In: the log's folder. Out: ids to begin with, for people who look around. Reads a few files
of each partition, however long the log is; where it is not here, there is nothing to offer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, INTERNAL_PREFIX
from srp4ctr.streams.raw_log.log_files import files_of

_FILES = 3  # of a partition; one covers two seconds of traffic, or what was merged
_ROWS = 2000  # of a file, its last: of a merged one the rest is of no use
_COLUMNS = ["type", "user_id", "item_id", "occurred_at"]
_ACTS = ("click", "behavior")  # being shown something makes no one a user to look at


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentIds:
    """Distinct ids, the last seen first."""

    users: Sequence[str]
    items: Sequence[str]


def recent_ids(log_dir: Path, partitions: int, limit: int) -> RecentIds:
    """Return the ``limit`` last users who did something, and items they met."""
    rows = []
    for partition in range(partitions):
        for path in files_of(log_dir, BEHAVIOR_EVENTS_TOPIC, partition)[-_FILES:]:
            try:
                table = pq.ParquetFile(path).read(_COLUMNS)
            except FileNotFoundError:
                continue  # its day was just removed, or it was merged
            rows += table.slice(max(0, table.num_rows - _ROWS)).to_pylist()
    rows.sort(key=lambda row: -row["occurred_at"])
    acts = [row for row in rows if row["type"] in _ACTS]
    users = dict.fromkeys(
        row["user_id"] for row in acts if not row["user_id"].startswith(INTERNAL_PREFIX)
    )
    items = dict.fromkeys(row["item_id"] for row in rows if row["item_id"])
    return RecentIds(users=list(islice(users, limit)), items=list(islice(items, limit)))
