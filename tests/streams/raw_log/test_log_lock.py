"""Readers of the raw log share its lock; removing files needs it exclusively."""

import errno
import fcntl
import logging
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from benchmarks.harness.raw_logs import write_log
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency import replay
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log.compaction import merge_some, remove_duplicates
from srp4ctr.streams.raw_log.erasure import erase_forgotten, erasure_requests_in
from srp4ctr.streams.raw_log.log_files import (
    LOCK_FILE,
    covered_offsets,
    known_ms,
    read_files,
    reading,
    remove_before,
    removing,
)
from srp4ctr.streams.worker.restore import logged
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.cache import name_of
from tests.builders import NOON_MS, a_behavior

PLACE = (BEHAVIOR_EVENTS_TOPIC, 0)


READERS: dict[str, Callable[[Path], object]] = {
    "read_files": lambda log: list(read_files(log, *PLACE)),
    "known_ms": lambda log: known_ms(log, *PLACE, 0),
    "covered_offsets": lambda log: covered_offsets(log, *PLACE),
    "remove_duplicates": lambda log: remove_duplicates(log, *PLACE),
    "erase_forgotten": erase_forgotten,
    "erasure_requests_in": erasure_requests_in,
    "restoring": lambda log: list(logged(log)),
    "places": lambda log: replay.places(log, "user_id"),
    "events_of": lambda log: replay.events_of(log, "user_id", [("u1", 0)]),
    "name_of": lambda log: name_of(
        RefreshConfig(), FeatureConfig(log_dir=str(log)), StreamConfig(), ""
    ),
}


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    return write_log(tmp_path, [(a_behavior(), NOON_MS)])


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_waits_while_files_are_taken_away(log_dir: Path, reader: str) -> None:
    reads = threading.Thread(target=READERS[reader], args=(log_dir,), daemon=True)
    with removing(log_dir) as is_exclusive:
        assert is_exclusive
        reads.start()
        reads.join(0.2)
        assert reads.is_alive()
    reads.join(30)
    assert not reads.is_alive()


def test_nothing_is_taken_away_while_anybody_reads(log_dir: Path) -> None:
    with reading(log_dir), reading(log_dir):
        with reading(log_dir):
            pass  # who ends first leaves the others theirs
        with removing(log_dir) as is_exclusive:
            assert not is_exclusive
    with removing(log_dir) as is_exclusive:
        assert is_exclusive


def test_an_open_log_keeps_its_files(log_dir: Path) -> None:
    with opened(log_dir), removing(log_dir) as is_exclusive:
        assert not is_exclusive


def test_an_absent_log_is_read_without_a_lock_and_not_made(tmp_path: Path) -> None:
    with reading(tmp_path / "nowhere"):
        assert not (tmp_path / "nowhere").exists()
    with (
        pytest.raises(FileNotFoundError),
        removing(tmp_path / "nowhere"),
    ):
        pass


def test_a_lock_that_cannot_be_opened_is_no_error_to_a_reader(log_dir: Path) -> None:
    (log_dir / LOCK_FILE).mkdir()  # as where a folder is not ours to write to
    with reading(log_dir):
        pass


def test_without_locks_dates_are_removed_and_nothing_is_merged(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    write_log(log_dir, [(a_behavior(), NOON_MS)], start=1)
    monkeypatch.setattr(fcntl, "flock", none)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert merge_some(log_dir, *PLACE, 2) is None
        with reading(log_dir):
            assert len(remove_before(log_dir, date(2024, 1, 1)) or ()) == 1
    assert list(read_files(log_dir, *PLACE)) == []
    [said] = caplog.messages
    assert "knows no locks" in said
    assert str(log_dir) in said


def test_another_error_of_the_lock_is_one_to_who_takes_away(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="input/output"):
        remove_before(log_dir, date(2024, 1, 1))
    assert len(list(read_files(log_dir, *PLACE))) == 1
