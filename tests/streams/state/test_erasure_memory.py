"""Which erasure requests are kept: those that a later event may still be judged by."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.state.duplicates import Deduplication, Fate
from tests.builders import NOON_MS, a_behavior, a_forget

Request = tuple[int, int]  # until when, at which offset


def taken(rule: Deduplication, offset: int, at_ms: int, *, is_request: bool) -> Fate:
    event = a_forget(at_ms=at_ms) if is_request else a_behavior(at_ms=at_ms)
    return rule.take(LoggedEvent(event=event, offset=offset, known_at_ms=at_ms))


def test_of_many_requests_of_a_user_one_is_kept() -> None:
    rule = Deduplication()
    for offset in range(500):
        taken(rule, offset, NOON_MS + offset, is_request=True)
    assert taken(rule, 500, NOON_MS + 499, is_request=False) is Fate.ERASED
    assert taken(rule, 501, NOON_MS + 500, is_request=False) is Fate.COUNTED
    assert rule.erasures == 1


times = st.integers(NOON_MS, NOON_MS + 5)


@given(
    st.lists(st.tuples(times, st.integers(0, 12)), max_size=4),
    st.lists(st.tuples(times, st.booleans()), max_size=12),
)
def test_events_are_erased_by_any_request_before_them(
    stored: list[Request], events: Iterable[tuple[int, bool]]
) -> None:
    """Also by one that the store had, whose offset is read again later."""
    rule, requests = Deduplication(), list(stored)
    for until_ms, at in stored:
        rule.add_erasure("u1", until_ms, at)
    for offset, (at_ms, is_request) in enumerate(events):
        is_erased = any(at < offset and at_ms <= until for until, at in requests)
        fate = taken(rule, offset, at_ms, is_request=is_request)
        assert (fate is Fate.ERASED) == is_erased
        if is_request and not is_erased:
            requests.append((at_ms, offset))
