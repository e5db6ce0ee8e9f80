from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from streams.config import StreamConfig
from streams.events import BEHAVIOR_EVENTS_TOPIC, Rebuild, UserEvent, item_key
from streams.folding import LoggedEvent
from streams.labels import ImpressionLabel
from streams.partition import PartitionState, RejectedRecord, decode_record, replay_labels
from streams.sink import Rows
from streams.wire import (
    COMMAND_KEY,
    MAX_CLOCK_SKEW_MS,
    encode,
    encode_command,
    event_key,
)
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression
from tests.streams.memory_sink import MemorySink

LATER_MS = NOON_MS + 3_600_000  # the wall clock, long after the events


@dataclass(frozen=True, slots=True, kw_only=True)
class ARecord:
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


def a_command(offset: int, key: bytes = COMMAND_KEY) -> ARecord:
    command = Rebuild(event_id="c1", since_ms=NOON_MS)
    return ARecord(value=encode_command(command), key=key, offset=offset)


def a_state(next_offset: int = 0) -> PartitionState:
    config = StreamConfig(sequence_length=5, label_window_s=60, correction_window_s=600)
    return PartitionState(3, next_offset, config)


def taken(
    state: PartitionState, batch: Sequence[ARecord], sink: MemorySink | None = None
) -> None:
    """Let ``state`` take ``batch``, with rows of ``sink``."""
    events, command = state.decode(batch)
    assert command is None
    if sink is not None:
        users, shares = state.unknown(events)
        state.remember(users, shares, sink.read(users, shares))
    state.fold(events, LATER_MS)


def stored(state: PartitionState, sink: MemorySink) -> None:
    sink.write(state.dirty)
    state.stored()


def restarted(batch: Sequence[ARecord]) -> PartitionState:
    """Return what a worker holds that starts after ``batch`` was committed."""
    events, _ = a_state().decode(batch)
    state = a_state(len(batch))
    replay_labels(state, events, LATER_MS)
    return state


def counts(state: PartitionState, item_id: str = "i1") -> list[float]:
    """Return impressions and clicks of user u1 and of an item, hardly decayed."""
    activities = (
        state.dirty.activities["u1"],
        state.dirty.shares[item_key(item_id), 3],
    )
    return [n for a in activities for n in (round(a.impressions[2]), round(a.clicks[2]))]


def test_a_batch_makes_rows_dirty_until_they_are_stored() -> None:
    state = a_state()
    taken(state, records(an_impression(), a_click(), a_behavior()))
    dirty, share = state.dirty, (item_key("i1"), 3)
    assert len(dirty.sequences["u1"].elements) == 2
    assert (dirty.sequences["u1"].last_offset, len(dirty)) == (2, 3)
    assert dirty.activities["u1"].last_offset == dirty.shares[share].last_offset == 1
    assert [label.clicked for label in state.decided] == [True]
    assert state.is_dirty
    state.stored()
    assert not state.is_dirty
    assert len(state.dirty) == 0


def test_a_redelivered_batch_changes_no_row() -> None:
    state = a_state()
    batch = records(an_impression(), a_click(), a_behavior())
    taken(state, batch)
    state.stored()
    taken(state, batch)
    assert len(state.dirty) == 0


def test_a_rejected_message_moves_the_offset_and_is_kept() -> None:
    state = a_state()
    taken(state, [ARecord(value=b"{", offset=7)])
    assert state.next_offset == 8
    assert state.rejected[0].record.offset == 7


def test_a_command_ends_a_batch_and_is_not_behind_us() -> None:
    state = a_state()
    batch = [*records(an_impression()), a_command(1), *records(a_click(), start=2)]
    events, command = state.decode(batch)
    assert [each.offset for each in events] == [0]
    assert command is not None
    assert (command.since_ms, state.next_offset) == (NOON_MS, 1)


def test_a_producers_command_is_no_command() -> None:
    decoded = decode_record(a_command(0, key=b"u1"))
    assert isinstance(decoded, RejectedRecord)
    assert decoded.rejected.reason == "unknown_type"


def test_only_rows_that_are_not_in_memory_are_asked_for() -> None:
    state = a_state()
    events, _ = state.decode(records(an_impression("i1"), a_behavior("i2")))
    users, shares = state.unknown(events)
    assert users == {"u1"}
    assert shares == {(item_key("i1"), 3)}  # a behaviour is not counted
    state.remember(users, shares, MemorySink().rows)
    assert state.unknown(events) == (set(), set())
    state.forget_rows()
    assert state.unknown(events) == (users, shares)


@pytest.mark.parametrize("ahead_ms", [0, 4 * 60_000, 5 * 60_000])
def test_an_event_is_known_when_its_record_says(ahead_ms: int) -> None:
    record = ARecord(value=encode(a_behavior(at_ms=NOON_MS + ahead_ms)))
    decoded = decode_record(record)
    assert isinstance(decoded, LoggedEvent)
    assert decoded.known_at_ms == NOON_MS


def test_an_event_from_its_records_future_is_rejected_whatever_the_wall_clock() -> None:
    six_minutes = encode(a_behavior(at_ms=NOON_MS + 6 * 60_000))  # in 2023
    decoded = decode_record(ARecord(value=six_minutes))
    assert isinstance(decoded, RejectedRecord)
    assert decoded.rejected.reason == "time_in_future"
    in_2080 = 3_471_292_800_000
    record = ARecord(value=encode(a_behavior(at_ms=in_2080)), timestamp=in_2080)
    assert isinstance(decode_record(record), LoggedEvent)


ONCE = [1, 1, 1, 1]
SHOWN, CLICKED = an_impression(event_id="shown"), a_click(event_id="clicked")
SHOWN_AGAIN = an_impression(event_id="again", at_ms=NOON_MS + 10)
CLICKED_AGAIN = a_click(event_id="again", at_ms=NOON_MS + 6_000)
PUBLISHED_TWICE: list[list[UserEvent]] = [
    [SHOWN, SHOWN, CLICKED],
    [SHOWN, CLICKED, CLICKED],
    [SHOWN, CLICKED, SHOWN_AGAIN, CLICKED_AGAIN],
    [CLICKED, SHOWN, CLICKED_AGAIN],  # the click came early
    [CLICKED, CLICKED_AGAIN, SHOWN, SHOWN_AGAIN],
]


@pytest.mark.parametrize("events", PUBLISHED_TWICE)
@pytest.mark.parametrize("batch_size", [1, 9])
def test_what_is_published_twice_counts_once(
    events: list[UserEvent], batch_size: int
) -> None:
    state, batch = a_state(), records(*events)
    for start in range(0, len(batch), batch_size):
        taken(state, batch[start : start + batch_size])
    assert counts(state) == ONCE


@pytest.mark.parametrize("events", PUBLISHED_TWICE)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_is_published_twice_counts_once_after_a_restart_too(
    events: list[UserEvent], at: int
) -> None:
    batch, sink, before = records(*events), MemorySink(), a_state()
    taken(before, batch[:at], sink)
    stored(before, sink)
    after = restarted(batch[:at])
    taken(after, batch[at:], sink)
    before.dirty.update(sink.rows)
    before.dirty.update(after.dirty)
    assert counts(before) == ONCE


def test_two_clicks_at_two_times_are_two_behaviours() -> None:
    state = a_state()
    taken(state, records(SHOWN, CLICKED, CLICKED_AGAIN))
    assert len(state.dirty.sequences["u1"].elements) == 2


def test_of_several_the_first_by_offset_counts() -> None:
    state = a_state()
    taken(state, records(SHOWN_AGAIN, SHOWN))
    assert state.dirty.activities["u1"].first_seen_ms == SHOWN_AGAIN.occurred_at


@pytest.mark.parametrize("field", ["user_id", "request_id", "item_id"])
def test_an_impression_of_another_user_request_or_item_is_no_duplicate(field: str) -> None:
    state = a_state()
    fields = {"item_id": "i1"} | {field: "another"}
    taken(state, records(SHOWN, an_impression(**fields)))  # type: ignore[arg-type]
    rows = state.dirty
    seen = [*rows.activities.values(), *rows.shares.values()]
    assert sum(each.impressions[2] for each in seen) == pytest.approx(4)


def test_beyond_both_windows_a_duplicate_is_news() -> None:
    state = a_state()
    # Of the window, and of the corrections' one behind it.
    times = [a_behavior(at_ms=NOON_MS + at_ms) for at_ms in (60_000, 660_000)]
    events: list[UserEvent] = [SHOWN, *times, SHOWN]
    for offset, event in enumerate(events):
        (record,) = records(event, start=offset)
        taken(state, [replace(record, timestamp=NOON_MS + 660_000)])
    assert counts(state) == [2, 0, 2, 0]


A_FORGOTTEN_LIFE = records(
    an_impression("i1"),
    a_click("i1"),
    a_behavior("i2"),
    an_impression("i2", at_ms=NOON_MS + 7_000),  # waits for a click
    a_forget(at_ms=NOON_MS + 8_000),
    a_behavior("i3", at_ms=NOON_MS + 1_000),  # late: it is forgotten already
    an_impression("i3", at_ms=NOON_MS + 1_000),
    a_click("i2", at_ms=NOON_MS + 7_500),
    a_behavior("i4", at_ms=NOON_MS + 9_000),
    an_impression("i4", at_ms=NOON_MS + 9_000, request_id="r2"),
)


def is_forgotten(sink: MemorySink) -> bool:
    """Return whether only what came after the wish is left of u1, and all of i1."""
    (kept,) = sink.rows.sequences["u1"].elements
    activity, shown = sink.rows.activities["u1"], sink.rows.shares[item_key("i1"), 3]
    return (
        kept.item_key == item_key("i4")
        and activity.impressions == (1.0, 1.0, 1.0)
        and activity.clicks == (0.0, 0.0, 0.0)
        and (round(shown.impressions[2]), round(shown.clicks[2])) == (1, 1)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 20])
def test_a_forgotten_user_stays_forgotten_in_any_batches(batch_size: int) -> None:
    sink, state = MemorySink(), a_state()
    for start in range(0, len(A_FORGOTTEN_LIFE), batch_size):
        taken(state, A_FORGOTTEN_LIFE[start : start + batch_size], sink)
        stored(state, sink)
    assert is_forgotten(sink)


@pytest.mark.parametrize("committed", range(len(A_FORGOTTEN_LIFE)))
def test_a_forgotten_user_stays_forgotten_when_all_is_delivered_again(
    committed: int,
) -> None:
    sink, state = MemorySink(), a_state()
    taken(state, A_FORGOTTEN_LIFE, sink)
    stored(state, sink)
    again = restarted(A_FORGOTTEN_LIFE[:committed])
    taken(again, A_FORGOTTEN_LIFE[committed:], sink)
    assert len(again.dirty) == 0
    assert is_forgotten(sink)


def test_a_forgotten_user_stays_forgotten_when_a_crash_left_half_a_batch_stored() -> None:
    """The wish was stored with the sequences; the counters before it were not."""
    sink, state = MemorySink(), a_state()
    taken(state, A_FORGOTTEN_LIFE, sink)
    sink.write(Rows(sequences=state.dirty.sequences))
    again = a_state()
    taken(again, A_FORGOTTEN_LIFE, sink)
    stored(again, sink)
    assert is_forgotten(sink)


def test_a_wish_published_twice_forgets_once() -> None:
    sink, state = MemorySink(), a_state()
    (wish,) = [each for each in A_FORGOTTEN_LIFE if b'"forget"' in (each.value or b"")]
    taken(state, [*A_FORGOTTEN_LIFE, replace(wish, offset=10)], sink)
    stored(state, sink)
    assert is_forgotten(sink)


def test_late_events_of_a_forgotten_user_are_known_from_the_store() -> None:
    sink, state = MemorySink(), a_state()
    taken(state, records(a_forget(at_ms=NOON_MS)), sink)
    stored(state, sink)
    fresh = a_state(1)  # the wish is out of the label replay's reach
    taken(fresh, records(a_click(at_ms=NOON_MS), a_behavior(at_ms=NOON_MS), start=1), sink)
    assert len(fresh.dirty) == 0


def test_a_forgotten_user_has_no_label_of_before() -> None:
    state = a_state()
    taken(state, A_FORGOTTEN_LIFE)
    labels = state.decided + state.labels.advance(NOON_MS + 120_000)
    assert {(label.item_id, label.clicked) for label in labels} == {
        ("i1", True),  # it was told before the wish
        ("i4", False),
    }


def test_a_restart_loses_no_label_where_the_producers_clocks_run_ahead() -> None:
    ahead_ms, seconds = 4 * 60_000, 600
    batch = [
        ARecord(
            value=encode(an_impression(at_ms=at_ms + ahead_ms, request_id=f"r{at_ms}")),
            timestamp=at_ms + ahead_ms,
            offset=offset,
        )
        for offset, at_ms in enumerate(
            range(NOON_MS, NOON_MS + seconds * 1000, 1000)  # when it is taken
        )
    ]
    before = a_state()
    for record in batch:
        events, _ = before.decode([record])
        before.fold(events, record.timestamp - ahead_ms)
    after = a_state()
    events, _ = a_state().decode(batch)
    for start in range(0, seconds, 50):
        replay_labels(after, events[start : start + 50], batch[-1].timestamp + 60_000)
    again = len(after.decided)
    after.decided += after.labels.advance(batch[-1].timestamp + 60_000)
    labelled = {label.request_id for label in before.decided + after.decided}
    assert len(labelled) == seconds
    assert again <= MAX_CLOCK_SKEW_MS // 1000  # not all that was ever published
    assert agree(before.decided + after.decided)


def agree(labels: list[ImpressionLabel]) -> bool:
    """Return whether equal revisions of an impression say the same."""
    said = {(label.request_id, label.revision): label for label in labels}
    return all(said[label.request_id, label.revision] == label for label in labels)
