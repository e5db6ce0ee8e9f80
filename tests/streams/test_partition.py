from dataclasses import dataclass

import pytest

from streams.config import StreamConfig
from streams.events import BEHAVIOR_EVENTS_TOPIC, UserEvent, item_key
from streams.folding import LoggedEvent, fold_items, fold_users
from streams.labels import ImpressionLabel
from streams.partition import PartitionState, decode_record, known_at, replay_labels
from streams.wire import MAX_CLOCK_SKEW_MS, encode, event_key
from tests.builders import NOON_MS, a_behavior, a_click, an_impression


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


def a_state() -> PartitionState:
    return PartitionState(3, 0, StreamConfig(sequence_length=5, label_window_s=60))


def taken(state: PartitionState, batch: list[ARecord]) -> None:
    state.fold(state.decode(batch, NOON_MS + 60_000))


def test_a_batch_makes_rows_dirty_until_they_are_stored() -> None:
    state = a_state()
    taken(state, records(an_impression(), a_click(), a_behavior()))
    (user,) = state.dirty_users()
    (share,) = state.dirty_shares()
    assert (user.user_id, len(user.sequence.elements)) == ("u1", 2)
    assert (share.item_key, share.partition) == (item_key("i1"), 3)
    assert (user.activity.last_offset, share.activity.last_offset) == (1, 1)
    assert [label.clicked for label in state.decided] == [True]
    assert state.is_dirty
    state.stored()
    assert not state.is_dirty
    assert state.dirty_users() == []


def test_a_redelivered_batch_changes_no_row() -> None:
    state = a_state()
    batch = records(an_impression(), a_click(), a_behavior())
    taken(state, batch)
    state.stored()
    taken(state, batch)
    assert state.dirty_users() == []
    assert state.dirty_shares() == []


def test_a_rejected_message_moves_the_offset_and_is_kept() -> None:
    state = a_state()
    taken(state, [ARecord(value=b"{", offset=7)])
    assert state.next_offset == 8
    assert state.rejected[0].record.offset == 7


def test_only_rows_that_are_not_in_memory_are_asked_for() -> None:
    state = a_state()
    events = state.decode(records(an_impression("i1"), a_behavior("i2")), NOON_MS)
    assert state.unknown_users(events) == ["u1"]
    assert state.unknown_items(events) == [item_key("i1")]  # a behaviour is not counted
    state.fold(events)
    assert state.unknown_users(events) == []
    assert state.unknown_items(events) == []


@pytest.mark.parametrize(
    ("stamped", "known"),
    [(NOON_MS - 5, NOON_MS - 5), (NOON_MS * 2, NOON_MS), (-1, NOON_MS)],
)
def test_a_record_is_never_known_before_now(stamped: int, known: int) -> None:
    assert known_at(ARecord(value=None, timestamp=stamped), NOON_MS) == known


def test_an_event_and_a_record_from_the_far_future_are_rejected_together() -> None:
    event = a_behavior(at_ms=NOON_MS * 2)
    record = ARecord(value=encode(event), timestamp=NOON_MS * 2)
    decoded = decode_record(record, NOON_MS)
    assert not isinstance(decoded, LoggedEvent)
    assert decoded.rejected.reason == "time_in_future"


def test_any_split_into_batches_gives_the_same_rows() -> None:
    events: list[UserEvent] = [
        an_impression("i1"),
        a_click("i1"),
        an_impression("i2", user_id="u2"),
        a_behavior("i2", user_id="u2"),
    ]
    batch = [
        LoggedEvent(event=event, offset=offset, known_at_ms=NOON_MS)
        for offset, event in enumerate(events)
    ]
    whole = (fold_users({}, batch, 5), fold_items({}, batch, 0))
    users, shares = fold_users({}, batch[:2], 5), fold_items({}, batch[:2], 0)
    users |= fold_users(users, batch[2:], 5)
    shares |= fold_items(shares, batch[2:], 0)
    assert (users, shares) == whole


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
        before.fold(before.decode([record], record.timestamp - ahead_ms))
    after = a_state()
    for start in range(0, seconds, 50):
        replay_labels(after, batch[start : start + 50], batch[-1].timestamp + 60_000)
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
