from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.events.schema import action_code, item_key
from srp4ctr.streams.state.sequences import (
    ELEMENT_BYTES,
    BehaviorSequence,
    SequenceElement,
    element_of,
    forget,
    merge,
    sequence_of,
)
from tests.builders import NOON_MS, a_behavior, a_click

elements = st.lists(
    st.builds(
        SequenceElement,
        occurred_at=st.integers(NOON_MS, NOON_MS + 5),
        item_key=st.integers(1, 4),
        action=st.integers(1, 2),
        value=st.none() | st.integers(0, 2).map(float),
    ),
    max_size=12,
)
LENGTH = 4


def folded(*batches: list[SequenceElement]) -> BehaviorSequence:
    sequence = BehaviorSequence()
    for offset, batch in enumerate(batches):
        sequence = merge(sequence, batch, LENGTH, offset)
    return sequence


def test_a_click_enters_as_an_action_without_a_value() -> None:
    element = element_of(a_click("i7"))
    assert (element.item_key, element.action) == (item_key("i7"), action_code("click"))
    assert element.value is None


def test_a_behaviour_keeps_its_value() -> None:
    assert element_of(a_behavior(action="rate", value=4.0)).value == 4.0


@given(elements)
def test_a_redelivered_batch_changes_nothing(batch: list[SequenceElement]) -> None:
    once = folded(batch)
    assert merge(once, batch, LENGTH, 7) is once


@given(elements, elements)
def test_the_order_of_arrival_does_not_matter(
    left: list[SequenceElement], right: list[SequenceElement]
) -> None:
    assert folded(left, right).elements == folded(right, left).elements


@given(elements, elements)
def test_batches_do_not_matter(
    left: list[SequenceElement], right: list[SequenceElement]
) -> None:
    assert folded(left, right).elements == folded(left + right).elements


@given(st.lists(elements, max_size=6))
def test_a_sequence_is_short_sorted_and_distinct(
    batches: list[list[SequenceElement]],
) -> None:
    kept = folded(*batches).elements
    identities = [(each.occurred_at, each.item_key, each.action) for each in kept]
    assert len(kept) <= LENGTH
    assert identities == sorted(set(identities))


@given(elements, elements)
def test_each_change_has_a_greater_version(
    first: list[SequenceElement], second: list[SequenceElement]
) -> None:
    before = folded(first)
    after = merge(before, second, LENGTH, 7)
    assert (after is before) or after.version_us > before.version_us


def test_a_sequence_names_the_last_event_that_changed_it() -> None:
    element = element_of(a_behavior())
    once = merge(BehaviorSequence(), [element], LENGTH, 3)
    assert merge(once, [element], LENGTH, 4).last_offset == 3
    assert merge(once, [element_of(a_click())], LENGTH, 5).last_offset == 5


@given(elements)
def test_packed_elements_are_the_same_when_unpacked(kept: list[SequenceElement]) -> None:
    sequence = sequence_of(kept)
    assert sequence.elements == tuple(kept)
    assert len(sequence.packed) == ELEMENT_BYTES * len(kept)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 31), st.floats(allow_nan=False))
def test_no_key_action_or_value_is_changed_by_packing(
    key: int, action: int, value: float
) -> None:
    element = SequenceElement(occurred_at=NOON_MS, item_key=key, action=action, value=value)
    assert sequence_of([element]).elements == (element,)


@given(elements, elements, st.integers(NOON_MS - 1, NOON_MS + 6))
def test_what_is_forgotten_never_shows_whenever_it_comes(
    before: list[SequenceElement], after: list[SequenceElement], at_ms: int
) -> None:
    forgotten = merge(forget(folded(before), at_ms, 1), after, LENGTH, 2)
    later = [each for each in before + after if each.occurred_at > at_ms]
    assert forgotten.elements == folded(later).elements
    assert forgotten.forgotten_at_ms == at_ms
    assert merge(forgotten, before + after, LENGTH, 3) is forgotten


@given(elements, st.integers(NOON_MS - 1, NOON_MS + 6))
def test_a_forgotten_sequence_replaces_what_is_stored(
    kept: list[SequenceElement], at_ms: int
) -> None:
    before = folded(kept)
    after = forget(before, at_ms, 9)
    assert (after.version_us > before.version_us, after.last_offset) == (True, 9)
