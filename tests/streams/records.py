"""Records as a partition's reader gets them, and what a partition makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import COMMAND_KEY, Record, encode, event_key
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Rebuild, UserEvent
from srp4ctr.streams.state.partition_state import PartitionState
from tests.builders import NOON_MS
from tests.streams.memory_sink import MemorySink

LATER_MS = NOON_MS + 3_600_000  # the wall clock, long after the events


@dataclass(frozen=True, slots=True, kw_only=True)
class ARecord(Record):
    value: bytes | None
    key: bytes | None = b"u1"
    offset: int = 0
    timestamp: int = NOON_MS
    topic: str = BEHAVIOR_EVENTS_TOPIC
    partition: int = 3


def records(*events: UserEvent, start: int = 0) -> list[ARecord]:
    return [
        ARecord(value=encode(event), key=event_key(event), offset=offset)
        for offset, event in enumerate(events, start)
    ]


def a_command(offset: int, key: bytes = COMMAND_KEY, since_ms: int = NOON_MS) -> ARecord:
    command = Rebuild(event_id="c1", since_ms=since_ms)
    return ARecord(value=encode(command), key=key, offset=offset)


def a_state(next_offset: int = 0) -> PartitionState:
    config = StreamConfig(sequence_length=5, label_window_s=60, correction_window_s=600)
    return PartitionState(3, next_offset, config)


def fold_batch(
    state: PartitionState, batch: Sequence[ARecord], sink: MemorySink | None = None
) -> None:
    """Let ``state`` take ``batch``, with rows of ``sink``."""
    events, command = state.decode(batch)
    assert command is None
    if sink is not None:
        users, shares = state.missing_rows(events)
        state.cache_rows(users, shares, sink.read(users, shares))
    state.fold(events, LATER_MS)


def write_rows(state: PartitionState, sink: MemorySink) -> None:
    sink.write(state.dirty)
    state.take_pending()


def restarted(batch: Sequence[ARecord]) -> PartitionState:
    """Return what a worker holds that starts after ``batch`` was committed."""
    events, _ = a_state().decode(batch)
    state = a_state(len(batch))
    state.replay(events, LATER_MS)
    return state
