"""The raw log's newest files → ids of recent users and items, to choose from.

It reads a few files of each partition, at any length of the log, and returns no ids if the
log is not on this machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, INTERNAL_PREFIX
from srp4ctr.streams.raw_log.log_files import files_of

_FILES = 3  # per partition; one covers two seconds of traffic, or is compacted
_ROWS = 2000  # the last of each file: a compacted one is long
_COLUMNS = ["type", "user_id", "item_id", "occurred_at"]
_ACTIONS = ("click", "behavior")  # a user with impressions only has no sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentIds:
    """Distinct ids, the newest first."""

    users: Sequence[str]
    items: Sequence[str]


def recent_ids(log_dir: Path, partitions: int, limit: int) -> RecentIds:
    """Return the ``limit`` newest users with an action, and the newest items."""
    rows = []
    for partition in range(partitions):
        for path in files_of(log_dir, BEHAVIOR_EVENTS_TOPIC, partition)[-_FILES:]:
            try:
                table = pq.ParquetFile(path).read(_COLUMNS)
            except FileNotFoundError:
                continue  # retention or compaction just removed it
            rows += table.slice(max(0, table.num_rows - _ROWS)).to_pylist()
    rows.sort(key=lambda row: -row["occurred_at"])
    actions = [row for row in rows if row["type"] in _ACTIONS]
    users = dict.fromkeys(
        row["user_id"] for row in actions if not row["user_id"].startswith(INTERNAL_PREFIX)
    )
    items = dict.fromkeys(row["item_id"] for row in rows if row["item_id"])
    return RecentIds(users=list(islice(users, limit)), items=list(islice(items, limit)))
