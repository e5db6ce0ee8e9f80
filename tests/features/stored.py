"""Events in a store, by the stream's own fold: what a worker would have written."""

from collections.abc import Sequence

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.state_store import FeatureSink

BATCH = 7


def store_events(
    sink: FeatureSink,
    events: Sequence[UserEvent],
    *,
    length: int,
    partition: int = 0,
    start: int = 0,
) -> None:
    """Fold ``events`` in batches into the rows of ``sink``, each known when it happened.

    ``start`` is the offset of the first.
    """
    state = PartitionState(partition, start, StreamConfig(sequence_length=length))
    logged = [
        LoggedEvent(event=event, offset=offset, known_at_ms=event.occurred_at)
        for offset, event in enumerate(events, start)
    ]
    for first in range(0, len(logged), BATCH):
        batch = logged[first : first + BATCH]
        users, shares = state.missing_rows(batch)
        state.cache_rows(users, shares, sink.read(users, shares))
        state.fold(batch, now_ms=max(each.known_at_ms for each in batch))
        sink.write(state.dirty)
        state.take_pending()
        state.drop_rows()  # so that each batch begins with what the store gives back
