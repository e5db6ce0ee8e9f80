"""Records of several partitions → the same by time, each partition's in its own order.

A consumer that reads a whole topic gets a megabyte of one partition before it begins with
the next. What looks at the newest hours alone would drop the others' records as too old.
"""

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Any

MAX_WAITING = 20_000  # of a partition: beyond them it is ``full``
MAX_WAIT_S = 10.0  # for a partition that is behind: its broker may be away


class PartitionOrder:
    """Holds records back until no partition that is behind can have older ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Hashable, list[tuple[int, Any]]] = defaultdict(list)
        self._newest_ms: dict[Hashable, int] = defaultdict(lambda: -1)
        self._taken_s = clock()

    @property
    def full(self) -> set[Hashable]:
        """The partitions that have enough records waiting: none is to be read of them."""
        return {each for each, held in self._waiting.items() if len(held) > MAX_WAITING}

    def add(self, partition: Hashable, records: Iterable[Any]) -> None:
        """Add the next records of ``partition``."""
        held = self._waiting[partition]
        for record in records:
            # Records of two producers may be out of order by a little.
            newest = max(self._newest_ms[partition], record.timestamp)
            self._newest_ms[partition] = newest
            held.append((newest, record))

    def take(self, behind: Collection[Hashable]) -> list[Any]:
        """Return, by time, the records that no partition of ``behind`` can precede."""
        until = min((self._newest_ms[each] for each in behind), default=None)
        if until is not None and self._clock() - self._taken_s > MAX_WAIT_S:
            until = None  # its broker is away: what is there must not wait for it
        taken: list[tuple[int, Any]] = []
        for held in self._waiting.values():
            count = len(held)
            if until is not None:
                count = bisect_right(held, until, key=lambda each: each[0])
            taken += held[:count]
            del held[:count]
        if taken or not any(self._waiting.values()):
            self._taken_s = self._clock()
        taken.sort(key=lambda each: each[0])  # stable: a partition's stay in their order
        return [record for _, record in taken]
