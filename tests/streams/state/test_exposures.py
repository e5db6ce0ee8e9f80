from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.state.exposures import EXPOSURE_BYTES, Exposures, forget, show
from tests.builders import NOON_MS

Shown = list[tuple[int, int]]
shown = st.lists(
    st.tuples(st.integers(NOON_MS, NOON_MS + 5), st.integers(-3, 3)), max_size=12
)
LENGTH = 4


def folded(events: Shown, exposures: Exposures | None = None) -> Exposures:
    exposures = exposures or Exposures()
    for offset, (at_ms, key) in enumerate(events):
        exposures = show(exposures, at_ms, key, LENGTH, offset)
    return exposures


@given(shown)
def test_the_latest_are_kept_in_order_and_once(events: Shown) -> None:
    kept = folded(events)
    assert kept.elements == tuple(sorted(set(events))[-LENGTH:])
    assert len(kept.packed) == EXPOSURE_BYTES * len(kept.elements)


@given(shown)
def test_a_redelivery_changes_nothing(events: Shown) -> None:
    once = folded(events)
    assert folded(events, once) is once


@given(shown, shown)
def test_the_order_of_arrival_does_not_matter(left: Shown, right: Shown) -> None:
    assert folded(left + right).elements == folded(right + left).elements


@given(shown, st.integers(NOON_MS - 1, NOON_MS + 6), shown)
def test_what_is_forgotten_never_comes_back(left: Shown, at_ms: int, right: Shown) -> None:
    after = folded(left + right, forget(folded(left), at_ms, offset=20))
    assert after.forgotten_at_ms == at_ms
    assert after.elements == tuple(
        sorted({each for each in left + right if each[0] > at_ms})[-LENGTH:]
    )
    assert forget(after, at_ms, offset=21) is after


@given(shown, st.tuples(st.integers(NOON_MS, NOON_MS + 5), st.integers(-3, 3)))
def test_each_change_has_a_greater_version(events: Shown, one: tuple[int, int]) -> None:
    before = folded(events)
    after = show(before, *one, length=LENGTH, offset=99)
    if after is not before:
        assert after.version_us > before.version_us
        assert after.last_offset == 99
