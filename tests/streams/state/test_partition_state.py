from dataclasses import replace

import pytest

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import (
    BACKFILL_HEADER,
    MAX_CLOCK_SKEW_MS,
    LoggedEvent,
    RejectedRecord,
    decode_record,
    encode,
    event_key,
)
from srp4ctr.streams.events.schema import (
    TOTAL_KEY,
    UserEvent,
    item_key,
)
from srp4ctr.streams.state.label_join import ImpressionLabel
from srp4ctr.streams.state.partition_state import PartitionState
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, a_profile, an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.records import (
    LATER_MS,
    ARecord,
    a_command,
    a_state,
    fold_batch,
    records,
    write_rows,
)


def test_a_batch_makes_rows_dirty_until_they_are_stored() -> None:
    state = a_state()
    fold_batch(state, records(an_impression(), a_click(), a_behavior()))
    dirty, share = state.dirty, (item_key("i1"), 3)
    assert len(dirty.users["u1"].sequence) == 2
    assert dirty.users["u1"].last_offset == 2
    assert len(dirty) == 3  # the user, the item, and the total of all items
    (shown,) = dirty.users["u1"].exposures.elements
    assert (shown.occurred_at, shown.item_key) == (NOON_MS, item_key("i1"))
    assert dirty.shares[share].last_offset == 1
    assert [label.clicked for label in state.decided] == [True]
    assert state.is_dirty
    state.take_pending()
    assert not state.is_dirty
    assert len(state.dirty) == 0


def test_a_redelivered_batch_changes_no_row() -> None:
    state = a_state()
    batch = records(an_impression(), a_click(), a_behavior())
    fold_batch(state, batch)
    state.take_pending()
    fold_batch(state, batch)
    assert len(state.dirty) == 0


def test_a_rejected_message_moves_the_offset_and_is_kept() -> None:
    state = a_state()
    fold_batch(state, [ARecord(value=b"{", offset=7)])
    assert state.next_offset == 8
    assert state.rejected[0].record.offset == 7


def test_a_command_ends_a_batch_and_is_read_again() -> None:
    state = a_state()
    batch = [*records(an_impression()), a_command(1), *records(a_click(), start=2)]
    events, command = state.decode(batch)
    assert [event.offset for event in events] == [0]
    assert command is not None
    assert (command.since_ms, state.next_offset) == (NOON_MS, 1)


def test_a_command_from_before_a_rebuild_of_as_much_is_done_by_it() -> None:
    state, end = a_state(), 4
    _, command = state.decode([a_command(0)])
    assert command is not None
    state.rebuilt(command, end)
    events, more = state.decode([a_command(1), *records(a_click(), start=2)])
    assert ([event.offset for event in events], more, state.next_offset) == ([2], None, 3)
    longer = a_command(3, since_ms=NOON_MS - 1)
    assert state.decode([longer])[1] is not None
    assert state.decode([a_command(end)])[1] is not None


def test_a_producers_command_is_no_command() -> None:
    decoded = decode_record(a_command(0, key=b"u1"))
    assert isinstance(decoded, RejectedRecord)
    assert decoded.rejected.reason == "unknown_type"


def test_only_rows_that_are_not_in_memory_are_missing() -> None:
    state = a_state()
    events, _ = state.decode(records(an_impression("i1"), a_behavior("i2")))
    users, shares = state.missing_rows(events)
    assert users == {"u1"}
    # A behaviour is not counted, and what is counted is in the total, too.
    assert shares == {(item_key("i1"), 3), (TOTAL_KEY, 3)}
    state.cache_rows(users, shares, MemorySink().rows)
    assert state.missing_rows(events) == (set(), set())
    state.evict(0)
    assert state.missing_rows(events) == (users, shares)


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
        after.replay(events[start : start + 50], batch[-1].timestamp + 60_000)
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


def test_rows_that_changed_meanwhile_stay_in_memory() -> None:
    state, sink = a_state(), MemorySink()
    first = [a_behavior(user_id=user) for user in ("u1", "u2", "u3")]
    fold_batch(state, records(*first), sink)
    on_its_way = state.take_pending()
    fold_batch(state, records(a_behavior("i2", user_id="u1"), start=3), sink)
    sink.write(on_its_way.rows)  # what u1 did last is not in it
    state.evict(0)
    users, _ = state.missing_rows(logged_events(*first))
    assert users == {"u2", "u3"}
    assert len(state.dirty.users["u1"].sequence) == 2


def test_the_rows_that_were_used_least_recently_are_dropped_first() -> None:
    state, sink = a_state(), MemorySink()
    shown = [an_impression(f"i{n}", user_id=f"u{n}") for n in range(10)]
    fold_batch(state, records(*shown), sink)
    again = [a_click("i0", user_id="u0"), a_click("i1", user_id="u1")]
    fold_batch(state, records(*again, start=10), sink)
    state.take_pending()
    all_bytes = state.cached_bytes
    state.evict(all_bytes)
    assert state.cached_bytes == all_bytes
    state.evict(all_bytes // 2)
    assert state.cached_bytes <= all_bytes // 2
    users, shares = state.missing_rows(logged_events(*shown))
    assert (len(users), len(shares)) == (5, 6)
    assert users.isdisjoint({"u0", "u1"})
    used = {(key, 3) for key in (item_key("i0"), item_key("i1"), TOTAL_KEY)}
    assert shares.isdisjoint(used)


def test_no_clock_that_runs_ahead_closes_a_window_early() -> None:
    """Neither as events are taken nor as they are replayed, until it is that time."""
    ahead_ms, now_ms = NOON_MS + 3_600_000, NOON_MS + 1000
    shown, fast = an_impression(), a_behavior(at_ms=ahead_ms)
    batch = [
        LoggedEvent(event=shown, offset=0, known_at_ms=NOON_MS),
        LoggedEvent(event=fast, offset=1, known_at_ms=ahead_ms),
    ]
    taken, replayed = a_state(), a_state()
    taken.fold(batch, now_ms)
    replayed.replay(batch, now_ms)
    for state in (taken, replayed):
        assert state.labels.watermark_ms == now_ms
        assert (state.decided, state.labels.waiting) == ([], 1)


def test_memory_is_counted_as_it_is_taken_and_freed() -> None:
    state, sink = a_state(), MemorySink()
    events: list[UserEvent] = []
    for user in ("u1", "u2"):
        events += [a_profile(user_id=user, town="a long name")]
        events += [a_forget(user_id=user, at_ms=NOON_MS - 1)]
    for event in events:
        fold_batch(state, records(event, start=state.next_offset), sink)
    once = state.cached_bytes
    for at_ms in (1, 2):
        again = a_profile(town="another one", at_ms=NOON_MS + at_ms)
        fold_batch(state, records(again, start=state.next_offset), sink)
    assert state.cached_bytes == once
    write_rows(state, sink)
    state.evict(0)
    assert state.cached_bytes == 0
    assert not state._deduplication._erasures


def logged_events(*events: UserEvent) -> list[LoggedEvent]:
    return a_state().decode(records(*events))[0]


def test_a_record_s_header_marks_a_backfill() -> None:
    event = a_click(at_ms=NOON_MS)
    plain = ARecord(value=encode(event), key=event_key(event))
    old = replace(plain, headers=(("trace", b"x"), (BACKFILL_HEADER, b"1")))
    found = [decode_record(each) for each in (plain, old)]
    assert [isinstance(f, LoggedEvent) and f.is_backfilled for f in found] == [False, True]


def test_events_of_a_user_whose_row_is_of_another_partition_are_rejected() -> None:
    """As after partitions were added: the row's offsets would make all look counted."""
    sink, state = MemorySink(), a_state()
    fold_batch(state, records(an_impression(), start=1000), sink)
    write_rows(state, sink)
    assert sink.rows.users["u1"].partition == 3
    moved = PartitionState(5, 0, StreamConfig())
    batch = records(a_click(), an_impression(user_id="u2"), a_behavior())
    events, _ = moved.decode(batch)
    elsewhere = moved.cache_rows(*moved.missing_rows(events), sink.rows)
    own = moved.reject_moved(elsewhere, events, batch)
    moved.fold(own, LATER_MS)
    assert ([each.offset for each in own], list(moved.dirty.users)) == ([1], ["u2"])
    assert [each.record.offset for each in moved.rejected] == [0, 2]
    (rejected, _) = [each.rejected for each in moved.rejected]
    assert rejected.reason == "wrong_partition"
    assert "row has offsets of partition 3, this record is in partition 5" in (
        rejected.detail
    )
    assert moved.next_offset == 3


def test_a_forgotten_user_s_row_keeps_its_partition() -> None:
    state, sink = a_state(), MemorySink()
    fold_batch(state, records(an_impression(), a_forget(at_ms=NOON_MS)), sink)
    write_rows(state, sink)
    assert sink.rows.users["u1"].partition == 3
