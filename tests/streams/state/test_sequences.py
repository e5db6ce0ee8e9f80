import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.events.schema import action_code, item_key
from srp4ctr.streams.state.sequences import (
    EMPTY,
    SHOWN,
    BehaviorSequence,
    SequenceElement,
    element_of,
    later,
    merge,
    sequence_of,
)
from tests.builders import NOON_MS, a_behavior, a_click

MONTHS_MS = 3_000_000_000  # two of these do not fit four bytes
times = st.integers(NOON_MS, NOON_MS + 5) | st.sampled_from(
    [NOON_MS - MONTHS_MS, NOON_MS + MONTHS_MS]
)
elements = st.lists(
    st.builds(
        SequenceElement,
        occurred_at=times,
        item_key=st.integers(-2, 2),
        action=st.integers(SHOWN, 2),
        value=st.none() | st.integers(0, 2).map(float),
    ),
    max_size=12,
)
LENGTH = 4


def folded(
    events: list[SequenceElement], sequence: BehaviorSequence = EMPTY
) -> BehaviorSequence:
    for element in events:
        sequence = merge(sequence, element, LENGTH)
    return sequence


def latest(events: list[SequenceElement]) -> tuple[SequenceElement, ...]:
    """Return the last ``LENGTH``, each once with its largest value, the slow way."""
    greatest: dict[tuple[int, int, int], SequenceElement] = {}
    for event in events:
        identity = (event.occurred_at, event.item_key, event.action)
        seen = greatest.get(identity, event)
        values = [value for value in (seen.value, event.value) if value is not None]
        value = max(values, default=None)
        at_ms, key, action = identity
        greatest[identity] = SequenceElement(
            occurred_at=at_ms, item_key=key, action=action, value=value
        )
    return tuple(greatest[identity] for identity in sorted(greatest)[-LENGTH:])


def test_a_click_enters_as_an_action_without_a_value() -> None:
    element = element_of(a_click("i7"))
    assert (element.item_key, element.action) == (item_key("i7"), action_code("click"))
    assert element.value is None


def test_a_behaviour_keeps_its_value() -> None:
    assert element_of(a_behavior(action="rate", value=4.0)).value == 4.0


@given(elements)
def test_the_latest_are_kept_in_order_and_once(events: list[SequenceElement]) -> None:
    kept = folded(events)
    # A value that comes after newer elements have pushed its element out is gone.
    identities = [(e.occurred_at, e.item_key, e.action) for e in kept.elements]
    assert identities == [(e.occurred_at, e.item_key, e.action) for e in latest(events)]
    assert len(kept) == len(kept.elements) == len(kept.keys) // 8
    if len(set(identities)) <= LENGTH and len(latest(events)) == len(set(events)):
        assert kept.elements == latest(events)


@given(elements)
def test_a_redelivery_changes_nothing(events: list[SequenceElement]) -> None:
    once = folded(events)
    assert folded(events, once) is once


@given(elements, elements)
def test_the_order_of_arrival_does_not_matter(
    left: list[SequenceElement], right: list[SequenceElement]
) -> None:
    assert folded(left + right) == folded(right + left)
    assert folded(left + right).elements == latest(left + right)


@given(elements)
def test_elements_are_the_same_when_unpacked(events: list[SequenceElement]) -> None:
    kept = sorted(events, key=lambda each: each.occurred_at)
    assert sequence_of(kept).elements == tuple(kept)


@given(
    *[st.integers(-(2**63), 2**63 - 1)] * 2,
    st.integers(0, 31),
    st.floats(allow_nan=False),
)
def test_no_time_key_action_or_value_is_changed(
    at_ms: int, key: int, action: int, value: float
) -> None:
    element = SequenceElement(occurred_at=at_ms, item_key=key, action=action, value=value)
    assert folded([element]).elements == (element,)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_shorter_length_drops_the_oldest(length: int) -> None:
    kept = folded([element_of(a_behavior(f"i{n}", at_ms=NOON_MS + n)) for n in range(4)])
    new = element_of(a_behavior("new", at_ms=NOON_MS + 9))
    expected = (*kept.elements, new)[-length:]
    assert merge(kept, new, length).elements == expected


@pytest.mark.parametrize("apart_ms", [2**32 - 1, 2**32, 2**32 + 1])
def test_times_that_hardly_fit_four_bytes_or_hardly_do_not_are_kept(apart_ms: int) -> None:
    ends = tuple(element_of(a_click(at_ms=NOON_MS + at_ms)) for at_ms in (0, apart_ms))
    assert folded(list(ends)).elements == ends
    assert sequence_of(ends).elements == ends


def test_a_sequence_of_49_days_takes_13_bytes_a_behaviour() -> None:
    days = [element_of(a_click(at_ms=NOON_MS + n * 86_400_000)) for n in range(49)]
    kept = sequence_of(days)
    columns = (kept.times, kept.keys, kept.codes, kept.values)
    assert sum(map(len, columns)) == 49 * 13


@given(elements, elements, times)
def test_what_is_forgotten_is_gone(
    before: list[SequenceElement], after: list[SequenceElement], at_ms: int
) -> None:
    kept = later(folded(before), at_ms)
    assert all(element.occurred_at > at_ms for element in kept.elements)
    assert folded(after, kept).elements == latest([*kept.elements, *after])
