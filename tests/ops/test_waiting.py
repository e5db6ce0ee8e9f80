"""What is away is waited for, and said once; what waiting cannot mend is raised."""

import os
import signal
from collections.abc import Callable

import pytest

from srp4ctr.errors import OutageError
from srp4ctr.ops.waiting import ended_by_sigterm, until_there


def away_for(times: int, text: str = "no Kafka broker answers") -> Callable[[], str]:
    left = iter(range(times))

    def call() -> str:
        if next(left, None) is not None:
            raise OutageError(text)
        return "there"

    return call


def test_a_call_is_made_again_until_it_answers_and_the_reason_is_said_once() -> None:
    said: list[str] = []
    assert until_there(away_for(4), said.append, lambda _: None) == "there"
    assert said == ["waiting: no Kafka broker answers"]


def test_a_long_wait_is_said_again_each_minute_and_grows_to_15_seconds() -> None:
    said: list[str] = []
    waits: list[float] = []
    until_there(away_for(12), said.append, waits.append)
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 15.0]
    assert max(waits) == 15.0
    assert len(said) == 3  # at once, after a minute, after two


def test_what_waiting_cannot_mend_is_raised_at_once() -> None:
    def refused() -> None:
        raise ValueError("the broker did not let us in")

    with pytest.raises(ValueError, match="did not let us in"):
        until_there(refused, lambda _: None, lambda _: None)


def test_sigterm_ends_the_block_as_an_exception_would() -> None:
    undone = []

    def turn() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not disturb
            undone.append(True)

    with pytest.raises(SystemExit) as end, ended_by_sigterm():
        turn()
    assert end.value.code == 0
    assert undone == [True]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
