"""A store that has lost rows it had acknowledged → a rebuild, ordered without an operator.

In: users of a partition, and which event is in the row of each for sure. Out: where too
many rows of a sample are missing (a store restarted without its data, flushed, or failed
over to an empty replica), or any is older than that event (failed over to a replica that
was behind, or a restored dump), a rebuild command on the partition, as ``srp4ctr stream
rebuild`` would send it. The command is in Kafka: if the worker crashes before it has
rebuilt, the next one does.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from aiokafka import TopicPartition

from srp4ctr import metrics
from srp4ctr.streams.events.schema import FORGOTTEN_USER
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows

LOSSES = metrics.counter("srp4ctr_store_losses_total")
# A worker that starts on an empty store counts its losses before it is first scraped: rates
# of a counter do not show them.
LOST_AT = metrics.gauge("srp4ctr_store_lost_at_seconds")
CHECK_S = 30.0
SAMPLE = 100
"""Users of a partition that are looked up at a time: one read of the store."""
UNKNOWN = -1
"""The offset of a user of whom it is only known that there is a row."""
# An intact store lacks none: rows have no time to live, an erasure writes one, and they
# are not read while they are written. A few may have been removed by hand; of a cluster of
# ten nodes one lacks a tenth.
_LOST_SHARE = 0.05

Read = Callable[[Collection[str], Collection[ItemPartitionKey]], Awaitable[Rows]]
Order = Callable[[TopicPartition], Awaitable[None]]
_log = logging.getLogger(__name__)


def is_lost(stored: Mapping[str, int], rows: Rows) -> bool:
    """Return whether ``rows``, all that the store has, lack what was ``stored``.

    ``stored`` has the offset of an event in each user's row. An older row has no
    other cause; a row that is missing may have been removed by hand.
    """
    known = stored.keys() - {FORGOTTEN_USER}
    missing = known - rows.users.keys()
    if len(missing) > _LOST_SHARE * len(known):
        return True
    return any(rows.users[user].last_offset < stored[user] for user in known - missing)


def note_loss() -> None:
    """Count a partition whose rows the store has lost, and when."""
    LOSSES.inc()
    LOST_AT.set_to_current_time()


class LossWatch:
    """Looks up stored users of a worker's partitions, and orders what is to be rebuilt."""

    def __init__(self, read: Read, order: Order) -> None:
        self._read = read
        self._order = order
        self._ordered: set[TopicPartition] = set()
        self._sampled: dict[TopicPartition, Mapping[str, int]] = {}
        self.due = time.monotonic() + CHECK_S
        """When to ``check_all``, by the monotonic clock."""

    async def check_all(self, partitions: Mapping[TopicPartition, PartitionState]) -> None:
        """Check a sample of each partition; no write may be in progress."""
        self.due = time.monotonic() + CHECK_S
        for source, state in list(partitions.items()):
            stored = state.stored_offsets(SAMPLE)  # none where nothing has come yet
            await self.check(source, stored or self._sampled.get(source, {}))

    async def check(self, source: TopicPartition, stored: Mapping[str, int]) -> None:
        """Order a rebuild of ``source`` if the store has lost what was ``stored`` of it."""
        self._sampled[source] = stored
        if source not in self._ordered and is_lost(stored, await self._read(stored, ())):
            await self.order(source)

    async def order(self, source: TopicPartition) -> None:
        """Order a rebuild of ``source``, whose rows the store has lost."""
        if source in self._ordered:
            return
        self._ordered.add(source)
        note_loss()
        _log.error(
            "the store has lost rows of partition %d that it had acknowledged: they are "
            "rebuilt from Kafka and the raw log",
            source.partition,
        )
        await self._order(source)

    def rebuilt(self, source: TopicPartition) -> None:
        """Note that ``source`` is complete again."""
        self._ordered.discard(source)
        self._sampled.pop(source, None)

    def clear(self) -> None:
        """Drop what is known of all partitions: other members may have them now."""
        self._ordered.clear()
        self._sampled.clear()
