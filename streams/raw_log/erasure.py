"""Users who requested erasure → a raw log without them.

In: the log, and the erasure requests in it. Out: the same log, in which nothing that
these users did until then has a user any more. Their behaviours and labels are removed.
Their impressions and clicks stay, for items' counters, anonymized: without event, context,
score and version, under a request id that no other row and no caller has. The requests
stay as well: they apply to what comes late, or out of a backup.
"""

import hmac
import secrets
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from srp4ctr.retries import retry
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    COUNTED_TYPES,
    FORGOTTEN_USER,
    LABELS_TOPIC,
)
from srp4ctr.streams.raw_log.compaction import RowSpan, overwrite
from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    dataset,
    opened,
    outages,
    reading,
    stored_rows,
    vacuum,
)
from srp4ctr.streams.raw_log.log_tables import DATE

ErasureRequest = tuple[int, int]  # its offset, and until when all is to be erased
Requests = Mapping[str, list[ErasureRequest]]  # by user
_TIMES = {BEHAVIOR_EVENTS_TOPIC: "occurred_at", LABELS_TOPIC: "impression_at"}
_NULLED = (
    "context",
    "numbers",
    "score",
    "propensity",
    "model_version",
    "experiment",
    "arm",
)
_NO_EVENT = "erased"
_ATTEMPTS = 20  # each of which a compaction was in the way of
_Folder = tuple[str, int]  # date and partition
_Row = dict[str, Any]
_Changes = dict[tuple[int, str], _Row | None]  # by offset and user: the row that may stay


@dataclass(slots=True, kw_only=True)
class Erasure:
    """What was erased, or would be."""

    users: int
    """Those who ever requested erasure."""
    folders: int = 0
    """Dates of partitions that were rewritten."""
    removed: int = 0
    """Rows."""
    anonymized: int = 0
    """Rows."""


def erase_forgotten(log: Log, *, dry_run: bool = False) -> Erasure:
    """Erase from the log all that its users requested; a second run finds nothing.

    Safe while workers run. The previous files are removed immediately: a reader of a
    snapshot with them fails with ``OutageError``, and finds the erased log at its next try.
    """
    requests = erasure_requests_in(log)
    key = secrets.token_bytes(32)  # of this call only: request ids cannot be guessed
    found = Erasure(users=len(requests))
    for topic in _TIMES if requests else ():
        if (table := opened(log, topic)) is None:
            continue
        for folder, changes in _changes(log, topic, requests, key).items():
            if not dry_run:
                rewrite = partial(_rewrite, table, folder, changes)
                retry("erasure", rewrite, attempts=_ATTEMPTS)
            gone = sum(row is None for row in changes.values())
            found.folders += 1
            found.removed += gone
            found.anonymized += len(changes) - gone
        if not dry_run:
            # Also without a change: one that was killed may have come no further.
            empty = partial(vacuum, log, topic, at_once=True)
            retry("erasure", empty, attempts=_ATTEMPTS)
    return found


def _changes(
    log: Log, topic: str, requests: Requests, key: bytes
) -> dict[_Folder, _Changes]:
    changes: dict[_Folder, _Changes] = defaultdict(dict)
    users = pc.field("user_id").isin(pa.array(requests, pa.string()))
    with reading(log):
        for batch in dataset(log, topic).to_batches(filter=users):
            for row in batch.to_pylist():
                left = _erased(row, requests, topic, key)
                if left is not row:
                    place = row["offset"], row["user_id"]
                    changes[row[DATE], row["partition"]][place] = left
    return changes


def _rewrite(table: DeltaTable, folder: _Folder, changes: _Changes) -> None:
    """Replace the folder's rows by themselves with ``changes``, in one commit."""
    # Not by ``delete`` or ``merge``: they write types that pyarrow cannot filter. What
    # workers add meanwhile lies behind the span; a compaction is a conflict.
    offsets, users = zip(*changes, strict=True)
    span = RowSpan(*folder, first=0, last=max(offsets))
    with outages(table.table_uri):
        table.update_incremental()
    rows = stored_rows(table)
    # After a broker lost records, an offset may be another user's, too.
    is_changed = pc.field("offset").isin(offsets) & pc.field("user_id").isin(users)
    left = [row for row in changes.values() if row is not None]

    def batches() -> Iterator[pa.RecordBatch]:
        yield from rows.to_batches(filter=span.filter & ~is_changed)
        yield from pa.Table.from_pylist(left, schema=rows.schema).to_batches()

    overwrite(table, [span], rows.schema, batches())


def erasure_requests_in(log: Log) -> Requests:
    """Return each user's requests by offset, less those that an earlier one covers."""
    columns = ["user_id", "offset", "occurred_at"]
    rows = dataset(log, BEHAVIOR_EVENTS_TOPIC)
    # A request of this id would rewrite all anonymized rows, each time.
    is_request = (pc.field("type") == "forget") & (pc.field("user_id") != FORGOTTEN_USER)
    with reading(log):
        requests = rows.to_table(columns, filter=is_request).sort_by("offset").to_pylist()
    found: dict[str, list[ErasureRequest]] = defaultdict(list)
    for row in requests:
        before = found[row["user_id"]]
        if not before or row["occurred_at"] > before[-1][1]:
            before.append((row["offset"], row["occurred_at"]))
    return dict(found)


def is_erased(requests: Requests, user_id: str, at_ms: int) -> bool:
    """Return whether ``user_id`` requested erasure of what happened at ``at_ms``."""
    return user_id in requests and at_ms <= requests[user_id][-1][1]


def _erased(row: _Row, requests: Requests, topic: str, key: bytes) -> _Row | None:
    """Return ``row`` as it may stay; None if it may not."""
    user, at_ms = row["user_id"], row[_TIMES[topic]]
    if row.get("type") == "forget" or not is_erased(requests, user, at_ms):
        return row
    if row.get("type") not in COUNTED_TYPES:
        return None
    # As ``features.consistency.replay.counted`` has it: what came after the request was
    # never counted, and a request ends the memory of what was shown before.
    before = bisect_left(requests[user], (row["offset"], 0))
    if before and at_ms <= requests[user][before - 1][1]:
        return None
    request = f"{user}\0{before}\0{row['request_id']}".encode()
    return {
        **row,
        **dict.fromkeys(_NULLED),
        "event_id": _NO_EVENT,
        "user_id": FORGOTTEN_USER,
        "request_id": hmac.new(key, request, "sha256").hexdigest()[:32],
    }
