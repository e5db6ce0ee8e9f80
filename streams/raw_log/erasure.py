"""Users who asked to be forgotten → a raw log without them.

In: the log, and the wishes in it. Out: the same files, in which nothing that these users
did until then has a user any more. Their behaviours and labels are removed. Their
impressions and clicks stay, for items' counters, as nobody's: without event, context,
score and version, under a request id that no other row and no caller has. The wishes stay
as well: they keep what comes late, or out of a backup, from being remembered.
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
import pyarrow.parquet as pq

from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    FORGOTTEN_USER,
    LABELS_TOPIC,
)
from srp4ctr.streams.raw_log.log_files import replace_table, schema_of, unfinished_files
from srp4ctr.streams.raw_log.log_lock import reading

ErasureRequest = tuple[int, int]  # its offset, and until when all is to be forgotten
_TIMES = {BEHAVIOR_EVENTS_TOPIC: "occurred_at", LABELS_TOPIC: "impression_at"}
_COUNTED = ("impression", "click")
_NULLED = ("context", "score", "propensity", "model_version")
_NO_EVENT = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What was erased, or would be."""

    users: int
    """Who asked to be forgotten, ever."""
    files: int = 0
    """Those that were written anew."""
    removed: int = 0
    """Rows."""
    made_nobodys: int = 0
    """Rows."""


def erase_forgotten(log_dir: Path, *, dry_run: bool = False) -> Erasure:
    """Take all out of the log that its users asked to forget; again, and it finds nothing.

    Safe beside workers: a file is replaced whole, and none that was read before is merged
    after. One process at a time.
    """
    with reading(log_dir):
        return _erase(log_dir, dry_run)


def _erase(log_dir: Path, dry_run: bool) -> Erasure:
    wishes = wishes_in(log_dir)
    key = secrets.token_bytes(32)  # dies with this call: request ids cannot be tried out
    files = removed = made_nobodys = 0
    for topic in _TIMES if wishes else ():
        for path in sorted((log_dir / topic).glob("date=*/*.parquet")):
            if not _names_any(path, wishes):
                continue
            rows = pq.ParquetFile(path).read().to_pylist()
            kept = [_erased(row, wishes, topic, key) for row in rows]
            gone = kept.count(None)
            nobodys = sum(a is not b for a, b in zip(rows, kept, strict=True)) - gone
            if not gone + nobodys:
                continue
            files, removed, made_nobodys = files + 1, removed + gone, made_nobodys + nobodys
            if not dry_run:
                left = [row for row in kept if row is not None]
                replace_table(path, pa.Table.from_pylist(left, schema=schema_of(topic)))
        if not dry_run:
            # After the files, of which a merge may have read the rows before. Who is alive
            # and misses one writes it again.
            for path in unfinished_files(log_dir, topic):
                path.unlink(missing_ok=True)
    return Erasure(
        users=len(wishes), files=files, removed=removed, made_nobodys=made_nobodys
    )


def wishes_in(log_dir: Path) -> dict[str, list[ErasureRequest]]:
    """Return each user's wishes by offset, less those that ask for nothing more."""
    found: dict[str, list[ErasureRequest]] = {}
    columns = ["user_id", "offset", "occurred_at"]
    is_wish = pc.field("type") == "forget"
    with reading(log_dir):
        for path in (log_dir / BEHAVIOR_EVENTS_TOPIC).glob("date=*/*.parquet"):
            for row in pq.read_table(path, columns=columns, filters=is_wish).to_pylist():
                wish = (row["offset"], row["occurred_at"])
                found.setdefault(row["user_id"], []).append(wish)
    return {user: list(_growing(sorted(wishes))) for user, wishes in found.items()}


def is_forgotten(
    wishes: Mapping[str, list[ErasureRequest]], user_id: str, at_ms: int
) -> bool:
    """Return whether ``user_id`` asked to forget what was at ``at_ms``."""
    return user_id in wishes and at_ms <= wishes[user_id][-1][1]


def _growing(wishes: list[ErasureRequest]) -> Iterator[ErasureRequest]:
    latest = -1
    for offset, until in wishes:
        if until > latest:
            latest = until
            yield offset, until


def _names_any(path: Path, wishes: Mapping[str, list[ErasureRequest]]) -> bool:
    users = pq.read_table(path, columns=["user_id"])["user_id"]
    return bool(pc.any(pc.is_in(users, value_set=pa.array(wishes, pa.string()))).as_py())


def _erased(
    row: dict[str, Any], wishes: Mapping[str, list[ErasureRequest]], topic: str, key: bytes
) -> dict[str, Any] | None:
    """Return ``row`` as it may stay; None if it may not."""
    user, at_ms = row["user_id"], row[_TIMES[topic]]
    if row.get("type") == "forget" or not is_forgotten(wishes, user, at_ms):
        return row
    if row.get("type") not in _COUNTED:
        return None
    # As ``features.consistency.replay.counted`` has it: what came after the wish was never
    # counted, and with a wish ends the memory of what was shown before.
    before = bisect_left(wishes[user], (row["offset"], 0))
    if before and at_ms <= wishes[user][before - 1][1]:
        return None
    request = f"{user}\0{before}\0{row['request_id']}".encode()
    return {
        **row,
        **dict.fromkeys(_NULLED),
        "event_id": _NO_EVENT,
        "user_id": FORGOTTEN_USER,
        "request_id": hmac.new(key, request, "sha256").hexdigest()[:32],
    }
