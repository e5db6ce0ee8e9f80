from dataclasses import dataclass, field

import pytest

from srp4ctr import settings
from srp4ctr.ops import published_log
from srp4ctr.ops.published_log import IDLE_S, wait_until_logged


@dataclass
class Log:
    """How much is missing at each look, a second after the one before."""

    missing: list[int]
    now_s: float = 0.0
    shown: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self) -> int:
        return self.missing.pop(0) if len(self.missing) > 1 else self.missing[0]

    def sleep(self, _: float) -> None:
        self.now_s += 1.0

    def progress(self, step: str, done: int, total: int, note: str = "") -> None:
        assert step == "wait for the log"
        self.shown.append((done, total))

    def wait(self) -> int:
        return published_log._wait(self, self.progress, self.sleep, lambda: self.now_s)


def test_a_log_that_has_all_is_not_waited_for() -> None:
    log = Log([0])
    assert log.wait() == 0
    assert (log.now_s, log.shown) == (0.0, [])


def test_a_log_that_grows_is_waited_for_however_slow() -> None:
    slow = [n for n in (500, 400, 10) for _ in range(int(IDLE_S) - 1)]
    log = Log([*slow, 0])
    assert log.wait() == 0
    assert log.shown[-1] == (500, 500)


def test_what_never_comes_is_counted() -> None:
    log = Log([500, 7])
    assert log.wait() == 7
    assert log.now_s == pytest.approx(IDLE_S, abs=2)


def test_a_trainer_that_knows_no_broker_reads_the_log_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))
    log = Log([1])
    assert wait_until_logged(settings.load(), log.progress) == ""
    assert log.shown == []


def test_a_broker_that_is_away_stops_no_refresh(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("SRP4CTR_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    log = Log([1])
    assert wait_until_logged(settings.load(), log.progress) == ""
    assert "may lack the newest events" in caplog.text
