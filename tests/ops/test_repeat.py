"""A job at an interval: one turn that fails does not end the next."""

import pytest

from srp4ctr.errors import OutageError
from srp4ctr.ops.repeat import repeat, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("1h", 3600), ("2d", 172_800)]
)
def test_an_interval_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1.5h", "1 week"])
def test_another_interval_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write 30m, 1h or 2d"):
        seconds_of(text)


def test_a_turn_that_fails_is_followed_by_the_next() -> None:
    turns: list[int] = []
    said: list[str] = []

    def turn() -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            raise ConnectionError("no Triton answers")

    def sleep(seconds: float) -> None:
        assert 0.0 <= seconds <= 60.0
        if len(turns) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeat(turn, 60.0, said.append, sleep)
    assert turns == [0, 1, 2]
    assert said[0] == "failed: no Triton answers"
    assert sum("next refresh: 2" in each for each in said) == 3


def test_without_labels_or_a_server_the_next_turn_comes_within_a_minute() -> None:
    waits: list[float] = []

    def turn() -> None:
        raise OutageError("no matured labels in /data/events")

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        repeat(turn, 3600.0, said.append, sleep)
    assert said[0] == "failed: no matured labels in /data/events"
    assert 59.0 < waits[0] <= 60.0


def test_what_is_written_for_people_is_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for failure, is_traced in ((OutageError("away"), False), (KeyError("x"), True)):
        caplog.clear()

        def turn(raised: Exception = failure) -> None:
            raise raised

        def sleep(_: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            repeat(turn, 1.0, lambda _: None, sleep)
        assert any(record.exc_info for record in caplog.records) is is_traced


def test_a_turn_longer_than_the_interval_is_followed_at_once() -> None:
    def sleep(seconds: float) -> None:
        assert seconds == 0.0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeat(lambda: None, -1.0, lambda _: None, sleep)
