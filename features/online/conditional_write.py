"""Writes rows to Redis in Feast's layout, each only if it is newer than the stored one.

Feast reads the stored times, compares, and then writes. A worker that is paused in between
overwrites newer rows of other workers: one that was frozen until its session expired reset
seven users' counters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from srp4ctr.features.online.row_codec import HashRow, time_of, version_us

# Compare-and-set of each key: write it if its time still is the one that was read.
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
    """Redis' client, and whether it is a cluster's."""

    client: Any
    is_cluster: bool
    """A script's keys must be in one slot: each row is a call of its own, and one pipeline
    sends them to their nodes."""

    def node_of(self, key: bytes) -> dict[str, Any]:
        """Return the client's argument for the node of ``key``; without it, the client
        requests from a server which of a script's arguments are keys, each time."""
        if not self.is_cluster:
            return {}
        return {"target_nodes": self.client.get_node_from_key(key)}


def write_newer(store: Store, fields: Sequence[bytes], rows: list[HashRow]) -> None:
    """Write those ``rows`` that are newer than the stored; of ``fields`` the first is time.

    Raises Redis' errors.
    """
    while rows:
        stored = _stored_times(store.client, fields[0], rows)
        newer = [
            (row, time)
            for row, time in zip(rows, stored, strict=True)
            if version_us(time) < row.version_us
        ]
        written = _written(store, fields, newer)
        # Another worker wrote the others first: compare again.
        rows = [row for (row, _), done in zip(newer, written, strict=True) if not done]


def _written(
    store: Store, fields: Sequence[bytes], newer: list[tuple[HashRow, bytes]]
) -> list[int]:
    """Write each row of ``newer`` whose stored time is still the given one.

    Returns 1 for each row that was written, 0 for the others.
    """
    if not newer:
        return []
    calls = [[each] for each in newer] if store.is_cluster else [newer]
    with store.client.pipeline(transaction=False) as pipe:
        for call in calls:
            arguments: list[Any] = [len(fields), *fields]
            for row, time in call:
                arguments += (time, time_of(row.version_us), *row.values)
            keys = [row.key for row, _ in call]
            script = ("EVAL", _WRITE_IF_UNCHANGED, len(keys), *keys)
            pipe.execute_command(*script, *arguments, **store.node_of(keys[0]))
        return [done for answer in pipe.execute() for done in answer]


def _stored_times(client: Any, time_field: bytes, rows: Sequence[HashRow]) -> list[bytes]:
    with client.pipeline(transaction=False) as pipe:
        for row in rows:
            pipe.hget(row.key, time_field)
        return [time or b"" for time in pipe.execute()]
