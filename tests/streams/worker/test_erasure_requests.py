"""A user who requested erasure, in a partition's rows and labels."""

from dataclasses import replace

import pytest

from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.reducers import Rows
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, a_profile, an_impression
from tests.streams.memory_sink import MemorySink
from tests.streams.records import (
    a_state,
    fold_batch,
    records,
    restarted,
    write_rows,
)

A_FORGOTTEN_LIFE = records(
    an_impression("i1"),
    a_click("i1"),
    a_behavior("i2"),
    a_profile(age="34"),
    an_impression("i2", at_ms=NOON_MS + 7_000),  # waits for a click
    a_forget(at_ms=NOON_MS + 8_000),
    a_behavior("i3", at_ms=NOON_MS + 1_000),  # late: it is forgotten already
    an_impression("i3", at_ms=NOON_MS + 1_000),
    a_profile(age="35", at_ms=NOON_MS + 1_000),
    a_click("i2", at_ms=NOON_MS + 7_500),
    a_behavior("i4", at_ms=NOON_MS + 9_000),
    an_impression("i4", at_ms=NOON_MS + 9_000, request_id="r2"),
)


def is_forgotten(sink: MemorySink) -> bool:
    """Return whether only what came after the request is left of u1, and all of i1."""
    (kept,) = sink.rows.users["u1"].sequence.elements
    activity, shown = sink.rows.users["u1"], sink.rows.shares[item_key("i1"), 3]
    return (
        kept.item_key == item_key("i4")
        and activity.attributes == ""
        and [element.item_key for element in activity.exposures.elements] == [kept.item_key]
        and activity.impressions == (1.0,) * 4
        and activity.clicks == (0.0,) * 4
        and (round(shown.impressions[-1]), round(shown.clicks[-1])) == (1, 1)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 20])
def test_a_forgotten_user_stays_forgotten_in_any_batches(batch_size: int) -> None:
    sink, state = MemorySink(), a_state()
    for start in range(0, len(A_FORGOTTEN_LIFE), batch_size):
        fold_batch(state, A_FORGOTTEN_LIFE[start : start + batch_size], sink)
        write_rows(state, sink)
    assert is_forgotten(sink)


@pytest.mark.parametrize("committed", range(len(A_FORGOTTEN_LIFE)))
def test_a_forgotten_user_stays_forgotten_when_all_is_delivered_again(
    committed: int,
) -> None:
    sink, state = MemorySink(), a_state()
    fold_batch(state, A_FORGOTTEN_LIFE, sink)
    write_rows(state, sink)
    again = restarted(A_FORGOTTEN_LIFE[:committed])
    fold_batch(again, A_FORGOTTEN_LIFE[committed:], sink)
    assert len(again.dirty) == 0
    assert is_forgotten(sink)


def test_a_forgotten_user_stays_forgotten_when_a_crash_left_half_a_batch_stored() -> None:
    """Items' counters were stored; the user's row and its request were not."""
    sink, state = MemorySink(), a_state()
    fold_batch(state, A_FORGOTTEN_LIFE, sink)
    sink.write(Rows(shares=state.dirty.shares))
    again = a_state()
    fold_batch(again, A_FORGOTTEN_LIFE, sink)
    write_rows(again, sink)
    assert is_forgotten(sink)


def test_a_request_published_twice_erases_once() -> None:
    sink, state = MemorySink(), a_state()
    (request,) = [each for each in A_FORGOTTEN_LIFE if b'"forget"' in (each.value or b"")]
    fold_batch(state, [*A_FORGOTTEN_LIFE, replace(request, offset=12)], sink)
    write_rows(state, sink)
    assert is_forgotten(sink)


def test_late_events_of_a_forgotten_user_are_known_from_the_store() -> None:
    sink, state = MemorySink(), a_state()
    fold_batch(state, records(a_forget(at_ms=NOON_MS)), sink)
    write_rows(state, sink)
    fresh = a_state(1)  # the request is out of the label replay's reach
    fold_batch(
        fresh, records(a_click(at_ms=NOON_MS), a_behavior(at_ms=NOON_MS), start=1), sink
    )
    assert len(fresh.dirty) == 0


def test_a_forgotten_user_has_no_earlier_label() -> None:
    state = a_state()
    fold_batch(state, A_FORGOTTEN_LIFE)
    labels = state.decided + state.labels.advance(NOON_MS + 120_000)
    assert {(label.item_id, label.clicked) for label in labels} == {
        ("i1", True),  # it was published before the request
        ("i4", False),
    }
