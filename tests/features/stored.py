"""Events in a store, by the stream's own fold: what a worker or a rebuild would write."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import cast

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import FeatureSink
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.streams.worker.rebuild import Span, rebuild_rows
from srp4ctr.streams.worker.replay import ReplaySource

BATCH = 7


def a_user_who_acted(behaviors: int, start_ms: int) -> UserState:
    """Return a user with behaviours, all but the first with values, and exposures."""
    done = [
        SequenceElement(
            occurred_at=start_ms + i, item_key=100 + i, action=2, value=i or None
        )
        for i in range(behaviors)
    ]
    shown = [
        SequenceElement(occurred_at=start_ms + i, item_key=200 + i, action=SHOWN)
        for i in range(behaviors)
    ]
    return UserState(sequence=sequence_of(done), exposures=sequence_of(shown))


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
    config = StreamConfig(sequence_length=length)
    fold_into(sink, events, PartitionState(partition, start, config), start)


def fold_into(
    sink: FeatureSink, events: Sequence[UserEvent], state: PartitionState, start: int = 0
) -> None:
    """Fold ``events`` from offset ``start`` on into the rows of ``sink``, by ``state``."""
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
        state.evict(0)  # so that each batch begins with what the store gives back


class _Past:
    """A partition's past, as a rebuild reads it."""

    log_dir = Path("no-log")
    is_whole, missing = True, 0

    def __init__(self, log: Sequence[LoggedEvent]) -> None:
        self._log = log

    async def events(self, _since_ms: int, end: int) -> AsyncIterator[list[LoggedEvent]]:
        for start in range(0, end, BATCH):
            yield list(self._log[start : min(start + BATCH, end)])


def rebuild(
    log: Sequence[LoggedEvent],
    sink: FeatureSink,
    config: StreamConfig,
    since_ms: int = 0,
) -> None:
    """Rebuild partition 0, whose past since ``since_ms`` is ``log``, into ``sink``."""

    async def read(users: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        return sink.read(users, shares)

    async def write(rows: Rows) -> None:
        sink.write(rows)

    past = cast(ReplaySource, _Past(log))
    span = Span(partition=0, since_ms=since_ms, end=len(log))
    asyncio.run(rebuild_rows(past, span, config, read, write))
