"""Rows → Redis in Feast's layout, each only if it is newer than what is there by then.

Feast itself reads the stored times, compares, and then writes. A worker that stands still
between the two overwrites what others have written meanwhile: one frozen past its session
in the middle of a write put seven users' counters back to where they had been.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

# In one step for each key: compare its time with the one that was read, and write.
# ARGV: how many fields, their names (the time's first), then a key's old time and values.
_WRITE_IF_UNCHANGED = """
local width, written = tonumber(ARGV[1]), {}
for i, key in ipairs(KEYS) do
  local at = 2 + width + (i - 1) * (width + 1)
  written[i] = 0
  if (redis.call('HGET', key, ARGV[2]) or '') == ARGV[at] then
    local row = {}
    for j = 1, width do
      row[2 * j - 1], row[2 * j] = ARGV[1 + j], ARGV[at + j]
    end
    redis.call('HSET', key, unpack(row))
    written[i] = 1
  end
end
return written
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Redis' own client, and what must be known of what it talks to."""

    client: Any
    is_cluster: bool
    """A script's keys must lie in one slot: each row is a call of its own, and one
    pipeline takes them to their nodes."""

    def node_of(self, key: bytes) -> dict[str, Any]:
        """Return what tells the client the node of ``key``: it would ask a server which of
        a script's arguments are keys, each time."""
        if not self.is_cluster:
            return {}
        return {"target_nodes": self.client.get_node_from_key(key)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HashRow:
    """A row as Feast keeps it, as fields of one Redis hash."""

    key: bytes
    version_us: int
    values: tuple[bytes, ...]


def write_newer(
    store: Store,
    time_field: str | bytes,
    fields: Sequence[str | bytes],
    rows: list[HashRow],
) -> None:
    """Write those ``rows``, whose values are ``fields``, that are newer than the stored.

    Raises Redis' errors.
    """
    names = [time_field, *fields]
    while rows:
        stored = _stored_times(store.client, time_field, rows)
        newer = [
            (row, time)
            for row, time in zip(rows, stored, strict=True)
            if _version_us(time) < row.version_us
        ]
        written = _written(store, names, newer)
        # Somebody was faster with the others: compare once more.
        rows = [row for (row, _), done in zip(newer, written, strict=True) if not done]


def _written(
    store: Store, names: Sequence[str | bytes], newer: list[tuple[HashRow, bytes]]
) -> list[int]:
    """Write each row of ``newer`` whose stored time still is the one beside it.

    Returns a 1 for each row that was written, a 0 for any other.
    """
    if not newer:
        return []
    calls = [[each] for each in newer] if store.is_cluster else [newer]
    with store.client.pipeline(transaction=False) as pipe:
        for call in calls:
            arguments: list[Any] = [len(names), *names]
            for row, time in call:
                arguments += (time, _time(row.version_us), *row.values)
            keys = [row.key for row, _ in call]
            script = ("EVAL", _WRITE_IF_UNCHANGED, len(keys), *keys)
            pipe.execute_command(*script, *arguments, **store.node_of(keys[0]))
        return [done for answer in pipe.execute() for done in answer]


def _stored_times(
    client: Any, time_field: str | bytes, rows: Sequence[HashRow]
) -> list[bytes]:
    with client.pipeline(transaction=False) as pipe:
        for row in rows:
            pipe.hget(row.key, time_field)
        return [time or b"" for time in pipe.execute()]


def _time(version_us: int) -> bytes:
    seconds, micros = divmod(version_us, 1_000_000)
    time: bytes = Timestamp(seconds=seconds, nanos=micros * 1000).SerializeToString()
    return time


def _version_us(time: bytes) -> int:
    """Return the version that a stored time stands for; 0 where there is none."""
    stored = Timestamp.FromString(time)
    return int(stored.seconds * 1_000_000 + stored.nanos // 1000)
