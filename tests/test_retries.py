"""What may pass is tried again and counted; any other error is raised at once."""

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.retries import (
    LONGEST_PAUSE_S,
    CircuitBreaker,
    may_pass,
    retry,
    retry_async,
    retry_at_once,
    retry_during_outage,
)


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


def retries_of(operation: str) -> float:
    labels = {"operation": operation}
    return REGISTRY.get_sample_value("srp4ctr_retries_total", labels) or 0.0


def test_a_retried_call_returns_its_value_and_each_retry_is_counted() -> None:
    before, pauses = retries_of("a test"), list[float]()
    assert retry("a test", away_for(9), sleep=pauses.append) == "there"
    assert retries_of("a test") - before == 9 == len(pauses)
    assert max(pauses) <= LONGEST_PAUSE_S


def test_a_bug_is_raised_at_once_and_is_not_counted() -> None:
    calls = []

    def broken() -> None:
        calls.append(1)
        raise TypeError("a bug")

    before = retries_of("broken")
    with pytest.raises(TypeError, match="a bug"):
        retry("broken", broken, sleep=lambda _: None)
    assert len(calls) == 1
    assert retries_of("broken") == before


def test_the_last_error_is_raised_after_the_last_attempt_or_a_stop() -> None:
    with pytest.raises(OutageError):
        retry("few", away_for(3), attempts=3, sleep=lambda _: None)
    assert retry("few", away_for(2), attempts=3, sleep=lambda _: None) == "there"
    with pytest.raises(OutageError):
        retry("stopped", away_for(1), should_stop=lambda: True, sleep=lambda _: None)


def test_an_asynchronous_call_is_retried_by_the_same_policy() -> None:
    answer = away_for(2)

    async def call() -> str:
        return answer()

    async def no_pause(_: float) -> None:
        return None

    assert asyncio.run(retry_async("async", call, sleep=no_pause)) == "there"


class RetriableError(Exception):
    """As the Kafka clients mark theirs."""

    retriable = True


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OutageError("away"), True),
        (TimeoutError("slow"), True),
        (RetriableError("no leader"), True),
        (MistakeError("a typo"), False),
        (ArtifactError("torn"), False),
        (KeyError("a bug"), False),
    ],
)
def test_servers_come_back_and_mistakes_do_not(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


def test_the_breaker_opens_after_outages_in_a_row_and_closes_after_its_rest() -> None:
    now_s, calls = [100.0], list[int]()
    breaker = CircuitBreaker[str](failures=3, rest_s=1.0, clock=lambda: now_s[0])
    answer = away_for(3)

    def call() -> str:
        calls.append(1)
        return answer()

    assert [breaker(call) for _ in range(4)] == [None] * 4
    assert len(calls) == 3  # the fourth was not made
    now_s[0] += 1.0
    assert breaker(call) == "there"


def test_one_answer_between_failures_keeps_the_breaker_closed() -> None:
    breaker = CircuitBreaker[str](failures=2, clock=lambda: 0.0)
    for _ in range(3):
        assert breaker(away_for(1)) is None
        assert breaker(lambda: "there") == "there"


def test_the_breaker_hides_no_bug() -> None:
    with pytest.raises(KeyError):
        CircuitBreaker[str]()(lambda: dict[str, str]()["a bug"])


def test_a_call_with_a_waiting_caller_is_made_again_once_and_counted() -> None:
    counted = "srp4ctr_retries_total", {"operation": "soon"}
    assert retry_at_once("soon", away_for(1)) == "there"
    with pytest.raises(OutageError):
        retry_at_once("soon", away_for(2))
    assert REGISTRY.get_sample_value(*counted) == 2.0

    def wrong() -> str:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        retry_at_once("soon", wrong)
