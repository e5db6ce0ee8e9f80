"""An outage is waited for and reported once; any other error is raised."""

from collections.abc import Callable

import pytest

from srp4ctr.errors import OutageError, retry_during_outage


def away_for(times: int, text: str = "no Kafka broker answers") -> Callable[[], str]:
    left = iter(range(times))

    def call() -> str:
        if next(left, None) is not None:
            raise OutageError(text)
        return "there"

    return call


def test_a_call_is_repeated_until_it_answers_and_the_reason_is_reported_once() -> None:
    reported: list[str] = []
    assert retry_during_outage(away_for(4), reported.append, lambda _: None) == "there"
    assert reported == ["waiting: no Kafka broker answers"]


def test_a_long_wait_is_reported_each_minute_and_the_pauses_grow_to_15_seconds() -> None:
    reported: list[str] = []
    waits: list[float] = []
    retry_during_outage(away_for(12), reported.append, waits.append)
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 15.0]
    assert max(waits) == 15.0
    assert len(reported) == 3  # at once, after a minute, after two


def test_an_error_that_is_no_outage_is_raised_at_once() -> None:
    def refused() -> None:
        raise ValueError("the broker did not let us in")

    with pytest.raises(ValueError, match="did not let us in"):
        retry_during_outage(refused, lambda _: None, lambda _: None)
