"""The store's own offsets: up to which event of each partition its rows are whole.

A worker writes them behind the rows, and before the commit. A store that has lost writes
which it had acknowledged (it failed over to a replica that was behind, or a dump was
restored) has an older offset than the worker wrote, or than Kafka has committed: the worker
reads again from there, and rows recognise the events that they have seen. So a worker
compares the offsets *before* it writes rows: a row that it had read of the older store, and
that has a newer event, would look as if it had all events before that one.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from redis.cluster import RedisCluster
from redis.crc import key_slot

from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.state.state_store import LostWritesError

KEY = b"srp4ctr:stored-offsets"
RANGES = 32
"""Of a cluster's slots, each with a key: any node with two of them or more has one. A node
that fails over takes back its own keys only."""
_SLOTS = 16_384
_NOTHING = b""
# Sets the marks in ARGV unless one is neither what was seen nor the new one: the answer to
# a first try may have been lost. ARGV: of each partition its number, the mark that was seen
# ("" for none) and the new one. Returns whether it did.
_SET_IF_SEEN = """
for i = 1, #ARGV, 3 do
  local mark = redis.call('HGET', KEYS[1], ARGV[i]) or ''
  if mark ~= ARGV[i + 1] and mark ~= ARGV[i + 2] then return 0 end
end
for i = 1, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
return 1
"""
_Marks = dict[int, list[bytes]]
"""Of each partition the mark under each key."""


class StoredOffsets:
    """The marks of a worker's partitions; its calls must not overlap.

    A mark is an offset and the write that it came with, so that no two are equal: the same
    offset is written again by a rebuild, whose rows may be lost, too.
    """

    def __init__(
        self, call: Callable[[Callable[[Any], Any]], Any], config: FeatureConfig
    ) -> None:
        """``call`` is ``OnlineViews.call``."""
        self._call, self._config = call, config
        self._known: dict[int, list[set[bytes]]] = {}
        """Of each partition and key: what is stored, or may be after a failed write."""
        self._worker, self._writes = secrets.token_hex(4), 0

    @cached_property
    def _keys(self) -> list[bytes]:
        return cluster_keys() if self._config.redis_cluster else [KEY]

    def read(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the stored offsets of those of ``partitions`` that have one everywhere."""
        return {
            partition: min(map(_offset_of, marks))
            for partition, marks in self._read(partitions).items()
            if all(marks)
        }

    def begin(self, partition: int) -> int | None:
        """Return the stored offset, and take what is stored as this worker's own."""
        marks = self._read([partition])[partition]
        self._known[partition] = [{mark} for mark in marks]
        return min(map(_offset_of, marks)) if all(marks) else None

    def check(self, partitions: Iterable[int]) -> _Marks:
        """Return the marks; raises ``LostWritesError`` if this worker has not written one.

        A partition that was not begun with has no mark yet.
        """
        found = self._read(partitions)
        for partition, marks in found.items():
            known = self._known.setdefault(partition, [{_NOTHING} for _ in marks])
            if any(mark not in some for mark, some in zip(marks, known, strict=True)):
                raise LostWritesError(partition)
        return found

    def write(self, offsets: Mapping[int, int], seen: _Marks) -> None:
        """Set ``offsets`` if the marks are still those ``seen``; wait for replicas.

        Raises ``LostWritesError`` if they are not, ``OutageError`` if too few replicas have
        acknowledged.
        """
        self._writes += 1
        new = {
            partition: f"{offset} {self._worker}-{self._writes}".encode()
            for partition, offset in offsets.items()
        }
        for partition, mark in new.items():
            for known in self._known[partition]:
                known.add(mark)
        answers = self._call(lambda client: self._set(client, new, seen))
        if not all(answers[: len(self._keys)]):
            raise LostWritesError(next(iter(offsets)))
        for partition, mark in new.items():
            self._known[partition] = [{mark} for _ in self._keys]
        replicas = min(answers[len(self._keys) :], default=self._config.redis_wait_replicas)
        if replicas < self._config.redis_wait_replicas:
            raise OutageError(
                f"{replicas} of {self._config.redis_wait_replicas} replicas of the store "
                f"have the rows after {self._config.redis_wait_ms} ms: start the replicas, "
                "or set features.redis_wait_replicas to what there is"
            )

    def _read(self, partitions: Iterable[int]) -> _Marks:
        numbers = list(partitions)

        def read(client: Any) -> list[list[bytes | None]]:
            with client.pipeline(transaction=False) as pipe:
                for key in self._keys:
                    pipe.hmget(key, [str(number) for number in numbers])
                found: list[list[bytes | None]] = pipe.execute()
            return found

        by_key = self._call(read) if numbers else []
        return {
            number: [marks[place] or _NOTHING for marks in by_key]
            for place, number in enumerate(numbers)
        }

    def _set(self, client: Any, new: Mapping[int, bytes], seen: _Marks) -> list[int]:
        """Return whether each key was set, and then how many replicas of each node know."""
        is_cluster, nodes = isinstance(client, RedisCluster), dict[str, Any]()
        wait = ("WAIT", self._config.redis_wait_replicas, self._config.redis_wait_ms)
        with client.pipeline(transaction=False) as pipe:
            for place, key in enumerate(self._keys):
                arguments: list[Any] = []
                for partition, mark in new.items():
                    arguments += (partition, seen[partition][place], mark)
                target: dict[str, Any] = {}
                if is_cluster:
                    node = client.get_node_from_key(key)
                    target, nodes[node.name] = {"target_nodes": node}, node
                pipe.execute_command("EVAL", _SET_IF_SEEN, 1, key, *arguments, **target)
            # On the same connections, and behind all rows: a replica has these then.
            if self._config.redis_wait_replicas:
                for node in nodes.values():
                    pipe.execute_command(*wait, target_nodes=node)
                if not is_cluster:
                    pipe.execute_command(*wait)
            found: list[int] = pipe.execute()
        return found


def cluster_keys() -> list[bytes]:
    """Return a key in each of ``RANGES`` equal ranges of a cluster's slots."""
    keys: dict[int, bytes] = {}
    number = 0
    while len(keys) < RANGES:
        key = b"%s:{%d}" % (KEY, number)
        keys.setdefault(key_slot(key) * RANGES // _SLOTS, key)
        number += 1
    return [keys[place] for place in range(RANGES)]


def _offset_of(mark: bytes) -> int:
    return int(mark.split()[0])
