from hypothesis import given
from hypothesis import strategies as st

from streams.events import action_code, item_key
from streams.sequences import BehaviorSequence, SequenceElement, element_of, merge
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
    for batch in batches:
        sequence = merge(sequence, batch, LENGTH)
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
    assert merge(once, batch, LENGTH) is once


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
    after = merge(before, second, LENGTH)
    assert (after is before) or after.version_us > before.version_us
