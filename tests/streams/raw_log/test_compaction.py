"""Merging: the same rows in fewer files, whatever reads, erases or crashes meanwhile."""

import errno
import logging
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.raw_logs import write_log
from srp4ctr.atomic_files import write_unfinished
from srp4ctr.streams.raw_log import compaction
from srp4ctr.streams.raw_log.compaction import merge_some, remove_duplicates
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.streams.raw_log.log_files import (
    covered_offsets,
    files_of,
    read_files,
    reading,
    remove_before,
    remove_uncommitted,
)
from srp4ctr.streams.raw_log.log_tables import schema_of
from tests.builders import NOON_MS, a_behavior, a_forget
from tests.streams.logs import PARTITION, TOPIC, logged_offsets, write
from tests.structure.source_tree import ROOT

SMALL = ((0, 4), (5, 7), (9, 12))  # of offset 8 there is nothing


def write_some(log_dir: Path) -> None:
    for start, end in SMALL:
        write(log_dir, start, end)


def names(log_dir: Path) -> list[str]:
    return [path.stem.removeprefix("3-") for path in files_of(log_dir, TOPIC, PARTITION)]


def unfinished(log_dir: Path) -> list[Path]:
    return list(log_dir.rglob("*.tmp"))


def merge(log_dir: Path, committed: int = 1000) -> list[Path] | None:
    return merge_some(log_dir, TOPIC, PARTITION, committed)


def merge_all(log_dir: Path, committed: int = 1000) -> None:
    while merge(log_dir, committed):
        pass


def rows(log_dir: Path) -> list[dict[str, Any]]:
    return [row for some in read_files(log_dir, TOPIC, PARTITION) for row in some]


def test_one_file_has_the_rows_of_all_in_the_order_of_their_offsets(tmp_path: Path) -> None:
    write_some(tmp_path)
    before, covered = rows(tmp_path), covered_offsets(tmp_path, TOPIC, PARTITION)
    merged = merge(tmp_path)
    assert merged is not None
    assert [path.name for path in merged] == [f"3-{a}-{b}.parquet" for a, b in SMALL]
    assert names(tmp_path) == ["0-12"]
    assert rows(tmp_path) == before
    [whole] = files_of(tmp_path, TOPIC, PARTITION)
    offsets = pq.ParquetFile(whole).read()["offset"].to_pylist()
    assert offsets == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]
    assert covered_offsets(tmp_path, TOPIC, PARTITION) == covered
    assert merge(tmp_path) == []  # one file is not rewritten
    assert unfinished(tmp_path) == []


def test_what_is_not_committed_is_not_merged_and_can_be_removed(tmp_path: Path) -> None:
    for start, end in ((0, 3), (4, 7), (8, 9), (10, 12)):
        write(tmp_path, start, end)
    merge_all(tmp_path, committed=9)  # a file that is committed in part is not
    assert names(tmp_path) == ["0-7", "8-9", "10-12"]
    merge_all(tmp_path, committed=10)
    assert names(tmp_path) == ["0-7", "8-9", "10-12"]
    remove_uncommitted(tmp_path, TOPIC, PARTITION, 10)
    assert logged_offsets(tmp_path) == list(range(10))


def test_a_range_of_two_dates_stays_and_each_date_is_merged_by_itself(
    tmp_path: Path,
) -> None:
    for start, end in ((0, 4), (5, 14), (15, 24), (25, 26), (27, 29), (30, 31)):
        write(tmp_path, start, end)  # a new day begins with offset 20
    merge_all(tmp_path)
    assert names(tmp_path) == ["0-14", "15-24", "15-24", "25-31"]
    assert logged_offsets(tmp_path) == list(range(32))


def test_two_dates_side_by_side_are_not_merged(tmp_path: Path) -> None:
    for start, end in ((10, 14), (15, 19), (20, 24), (25, 29)):
        write(tmp_path, start, end)
    merge_all(tmp_path)
    assert names(tmp_path) == ["10-19", "20-29"]


def test_overlapping_files_are_not_merged(tmp_path: Path) -> None:
    for start, end in ((0, 4), (5, 9), (8, 12), (13, 14), (15, 16)):
        write(tmp_path, start, end)
    merge_all(tmp_path)
    assert names(tmp_path) == ["0-4", "5-9", "8-12", "13-16"]


def test_files_grow_to_so_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MAX_ROWS", 10)
    for start in range(100, 124, 4):
        write(tmp_path, start, start + 3)
    merge_all(tmp_path)
    assert names(tmp_path) == ["100-107", "108-115", "116-123"]


def test_only_so_many_files_are_merged_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MAX_FILES", 3)
    for offset in range(7):
        write(tmp_path, offset, offset)
    before = files_of(tmp_path, TOPIC, PARTITION)
    assert merge(tmp_path) == before[:3]
    assert merge(tmp_path) == before[3:5]  # what is merged already waits for more
    assert names(tmp_path) == ["0-2", "3-4", "5-5", "6-6"]


def test_a_big_file_is_rewritten_when_as_much_has_come(tmp_path: Path) -> None:
    write(tmp_path, 100, 109)
    for start, end in ((110, 112), (113, 115), (116, 118)):
        write(tmp_path, start, end)
    merge_all(tmp_path)
    assert names(tmp_path) == ["100-109", "110-118"]
    write(tmp_path, 119, 119)
    merge_all(tmp_path)
    assert names(tmp_path) == ["100-119"]


def test_columns_that_an_older_release_did_not_write_are_null(tmp_path: Path) -> None:
    write_some(tmp_path)
    old = files_of(tmp_path, TOPIC, PARTITION)[0]
    pq.write_table(pq.ParquetFile(old).read().drop_columns(["propensity"]), old)
    merge_all(tmp_path)
    [whole] = files_of(tmp_path, TOPIC, PARTITION)
    assert pq.read_schema(whole) == schema_of(TOPIC)
    assert logged_offsets(tmp_path) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]


def test_columns_of_a_newer_release_are_kept(tmp_path: Path) -> None:
    for start in range(0, 10, 2):
        write(tmp_path, start, start + 1)
    newer = files_of(tmp_path, TOPIC, PARTITION)[2]
    table = pq.ParquetFile(newer).read()
    pq.write_table(table.append_column("mood", pa.array(["gay"] * len(table))), newer)
    merge_all(tmp_path)
    assert names(tmp_path) == ["0-3", "4-5", "6-9"]
    assert "mood" in pq.read_schema(newer).names


@pytest.mark.parametrize("content", [b"", b"PAR1 broken", b"PAR1 brokPAR1\4\0\0\0PAR1"])
def test_a_file_that_cannot_be_read_is_named_once_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    for start in range(0, 10, 2):
        write(tmp_path, start, start + 1)
    broken = files_of(tmp_path, TOPIC, PARTITION)[2]
    broken.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        merge_all(tmp_path)
    assert names(tmp_path) == ["0-3", "4-5", "6-9"]
    assert broken.read_bytes() == content
    [said] = caplog.messages
    assert str(broken) in said


def test_nothing_is_taken_from_under_a_reader(tmp_path: Path) -> None:
    write_some(tmp_path)
    read = read_files(tmp_path, TOPIC, PARTITION)
    some = next(read)
    assert merge(tmp_path) is None
    assert [len(each) for each in (some, *read)] == [5, 3, 4]
    assert len(merge(tmp_path) or ()) == 3


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Any) -> None:
    """Let ``do()`` happen after the sources were read, before the swap."""

    def write_then_do(path: Path, write: Any) -> Path:
        written = write_unfinished(path, write)
        monkeypatch.undo()
        do()
        return written

    monkeypatch.setattr(compaction, "write_unfinished", write_then_do)


def test_who_begins_to_read_meanwhile_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_some(tmp_path)
    lock = reading(tmp_path)
    meanwhile(monkeypatch, lock.__enter__)
    assert merge(tmp_path) is None
    lock.__exit__(None, None, None)
    assert names(tmp_path) == ["0-4", "5-7", "9-12"]
    assert unfinished(tmp_path) == []


def test_what_is_erased_meanwhile_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start, event in enumerate((a_behavior(event_id="secret"), a_behavior("i2"))):
        write_log(tmp_path, [(event, NOON_MS)], PARTITION, start)
    write_log(tmp_path, [(a_forget(at_ms=NOON_MS + 1), NOON_MS)], PARTITION, 2)
    meanwhile(monkeypatch, lambda: erase_forgotten(tmp_path))
    assert merge(tmp_path) is None
    merge_all(tmp_path)
    assert [row["type"] for row in rows(tmp_path)] == ["forget"]
    assert names(tmp_path) == ["0-2"]
    assert unfinished(tmp_path) == []


def test_a_date_that_is_removed_meanwhile_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_some(tmp_path)
    meanwhile(monkeypatch, lambda: remove_before(tmp_path, date(2024, 1, 1)))
    assert merge(tmp_path) is None
    assert rows(tmp_path) == []


def test_a_full_disk_is_not_filled_with_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    write_some(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        merge(tmp_path)
    assert unfinished(tmp_path) == []
    assert names(tmp_path) == ["0-4", "5-7", "9-12"]


CRASHING = """
import os, signal, sys
from pathlib import Path
from srp4ctr.streams.raw_log.compaction import merge_some

def unlink(path, missing_ok=False):
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left.pop()
    os.unlink(path)

left = [None] * int(sys.argv[3])
Path.unlink = unlink
merge_some(Path(sys.argv[1]), sys.argv[2], 3, 1000)
"""


@pytest.mark.parametrize("unlinked", [0, 1, 2])
def test_a_writer_that_is_killed_as_it_swaps_loses_nothing(
    tmp_path: Path, unlinked: int
) -> None:
    write_some(tmp_path)
    write(tmp_path, 40, 44)  # of the next day
    before = rows(tmp_path)
    killed = subprocess.run(
        [sys.executable, "-c", CRASHING, str(tmp_path), TOPIC, str(unlinked)],
        check=False,
        cwd=ROOT,
    )
    assert killed.returncode < 0
    left = ["0-4", "5-7", "9-12"][unlinked:]
    assert sorted(names(tmp_path)) == sorted([*left, "0-12", "40-44"])
    assert rows(tmp_path) == before
    assert merge(tmp_path) == []  # its lock was released
    assert len(remove_duplicates(tmp_path, TOPIC, PARTITION)) == 3 - unlinked
    assert names(tmp_path) == ["0-12", "40-44"]
    assert rows(tmp_path) == before
