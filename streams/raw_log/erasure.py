"""Users who requested erasure → a raw log without them.

In: the log, and the erasure requests in it. Out: the same files, in which nothing that
these users did until then has a user any more. Their behaviours and labels are removed.
Their impressions and clicks stay, for items' counters, anonymized: without event, context,
score and version, under a request id that no other row and no caller has. The requests
stay as well: they apply to what comes late, or out of a backup.
"""

import hmac
import secrets
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    FORGOTTEN_USER,
    LABELS_TOPIC,
)
from srp4ctr.streams.raw_log.log_files import opened, reading, unfinished_files
from srp4ctr.streams.raw_log.log_tables import replace_table, schema_of

ErasureRequest = tuple[int, int]  # its offset, and until when all is to be erased
Requests = Mapping[str, list[ErasureRequest]]  # by user
_TIMES = {BEHAVIOR_EVENTS_TOPIC: "occurred_at", LABELS_TOPIC: "impression_at"}
_COUNTED = ("impression", "click")
_NULLED = ("context", "score", "propensity", "model_version")
_NO_EVENT = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What was erased, or would be."""

    users: int
    """Those who ever requested erasure."""
    files: int = 0
    """Those that were rewritten."""
    removed: int = 0
    """Rows."""
    anonymized: int = 0
    """Rows."""


def erase_forgotten(log_dir: Path, *, dry_run: bool = False) -> Erasure:
    """Erase from the log all that its users requested; a second run finds nothing.

    Safe while workers run: a file is replaced whole, and none that was read before is
    merged after. One process at a time.
    """
    with reading(log_dir):
        return _erase(log_dir, dry_run)


def _erase(log_dir: Path, dry_run: bool) -> Erasure:
    requests = erasure_requests_in(log_dir)
    key = secrets.token_bytes(32)  # of this call only: request ids cannot be guessed
    files = removed = anonymized = 0
    for topic in _TIMES if requests else ():
        for path in sorted((log_dir / topic).glob("date=*/*.parquet")):
            if not _names_any(path, requests):
                continue
            with opened(path) as file:
                rows = file.read().to_pylist()
            kept = [_erased(row, requests, topic, key) for row in rows]
            gone = kept.count(None)
            anonymous = sum(a is not b for a, b in zip(rows, kept, strict=True)) - gone
            if not gone + anonymous:
                continue
            files, removed, anonymized = files + 1, removed + gone, anonymized + anonymous
            if not dry_run:
                left = [row for row in kept if row is not None]
                replace_table(path, pa.Table.from_pylist(left, schema=schema_of(topic)))
        if not dry_run:
            # After the files, of which a merge may have read the rows before. A running
            # writer that misses one writes it again.
            for path in unfinished_files(log_dir, topic):
                path.unlink(missing_ok=True)
    return Erasure(users=len(requests), files=files, removed=removed, anonymized=anonymized)


def erasure_requests_in(log_dir: Path) -> Requests:
    """Return each user's requests by offset, less those that an earlier one covers."""
    found: dict[str, list[ErasureRequest]] = {}
    columns = ["type", "user_id", "offset", "occurred_at"]
    is_request = pc.field("type") == "forget"
    with reading(log_dir):
        for path in (log_dir / BEHAVIOR_EVENTS_TOPIC).glob("date=*/*.parquet"):
            with opened(path) as file:
                requests = file.read(columns).filter(is_request).to_pylist()
            for row in requests:
                request = (row["offset"], row["occurred_at"])
                found.setdefault(row["user_id"], []).append(request)
    return {user: list(_growing(sorted(requests))) for user, requests in found.items()}


def is_erased(requests: Requests, user_id: str, at_ms: int) -> bool:
    """Return whether ``user_id`` requested erasure of what happened at ``at_ms``."""
    return user_id in requests and at_ms <= requests[user_id][-1][1]


def _growing(requests: list[ErasureRequest]) -> Iterator[ErasureRequest]:
    latest = -1
    for offset, until in requests:
        if until > latest:
            latest = until
            yield offset, until


def _names_any(path: Path, requests: Requests) -> bool:
    with opened(path) as file:
        users = file.read(["user_id"])["user_id"]
    return bool(pc.any(pc.is_in(users, value_set=pa.array(requests, pa.string()))).as_py())


def _erased(
    row: dict[str, Any], requests: Requests, topic: str, key: bytes
) -> dict[str, Any] | None:
    """Return ``row`` as it may stay; None if it may not."""
    user, at_ms = row["user_id"], row[_TIMES[topic]]
    if row.get("type") == "forget" or not is_erased(requests, user, at_ms):
        return row
    if row.get("type") not in _COUNTED:
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
