"""Records of several partitions → the same by time; and partitions that give none.

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
# A partition counts as silent for so long between two calls, at most: in a longer time this
# process did not run, and could not have read. On a busy machine a monitor passed on the
# records of one of four partitions, and those of the others were too old by then.
MAX_STEP_S = 1.0


class Silence:
    """How long each partition that is behind has had no record.

    Seconds in which this process ran and its records were requested.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent_s: dict[Hashable, float] = {}
        self._called_s = clock()

    @property
    def longest_s(self) -> float:
        """The longest one, as of the last ``note``."""
        return max(self._silent_s.values(), default=0.0)

    def of(self, partition: Hashable) -> float:
        """Return the seconds of one partition; 0 if it is not behind."""
        return self._silent_s.get(partition, 0.0)

    def end(self, partition: Hashable) -> None:
        """Note a record of the partition."""
        self._silent_s.pop(partition, None)

    def note(self, behind: Iterable[Hashable]) -> None:
        """Add the time since the last call to each of ``behind``, and forget all others."""
        now_s = self._clock()
        step_s = min(now_s - self._called_s, MAX_STEP_S)
        self._called_s = now_s
        self._silent_s = {each: self.of(each) + step_s for each in behind}


class PartitionOrder:
    """Holds records back until no partition that is behind can have older ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.silence = Silence(clock)
        self._waiting: dict[Hashable, list[tuple[int, Any]]] = defaultdict(list)
        self._newest_ms: dict[Hashable, int] = defaultdict(lambda: -1)

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
            self.silence.end(partition)

    def take(self, behind: Collection[Hashable]) -> list[Any]:
        """Return, by time, the records that no partition of ``behind`` can precede."""
        self.silence.note(set(behind) - self.full)
        # A silent one's broker is away: what is there must not wait for it.
        awaited = [each for each in behind if self.silence.of(each) <= MAX_WAIT_S]
        until = min((self._newest_ms[each] for each in awaited), default=None)
        taken: list[tuple[int, Any]] = []
        for held in self._waiting.values():
            count = len(held)
            if until is not None:
                count = bisect_right(held, until, key=lambda each: each[0])
            taken += held[:count]
            del held[:count]
        taken.sort(key=lambda each: each[0])  # stable: a partition's stay in their order
        return [record for _, record in taken]
