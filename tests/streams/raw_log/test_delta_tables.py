"""The tables of the raw log: each offset once, in order, in a folder and in a bucket."""

import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.streams.events.schema import LABELS_TOPIC
from srp4ctr.streams.raw_log import delta_tables
from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    append,
    covered_offsets,
    created,
    dataset,
    next_offset,
    opened,
    partitions_of,
    read_rows,
    reading,
    remove_before,
    vacuum,
)
from srp4ctr.streams.raw_log.log_tables import table_of
from srp4ctr.testing.raw_logs import write_log
from tests.builders import NOON_MS, a_behavior, an_impression
from tests.streams.logs import (
    MIDNIGHT_AT,
    MIDNIGHT_MS,
    PARTITION,
    TOPIC,
    files,
    offsets,
    rows,
    rows_between,
    write,
)
from tests.training.logs import a_label

PLACE = (TOPIC, PARTITION)


def add(table: DeltaTable, start: int, end: int) -> bool:
    rows = table_of(TOPIC, rows_between(start, end))
    return append(table, rows, {PARTITION: range(start, end)})


def test_rows_lie_under_the_date_and_the_partition(raw_log: Log) -> None:
    write(raw_log, 18, 23)
    folders = [path.rpartition("/")[0] for path in files(raw_log)]
    assert folders == ["date=2023-11-14/partition=3", "date=2023-11-15/partition=3"]


def test_an_absent_log_is_empty_and_is_not_made(tmp_path: Path) -> None:
    log = tmp_path / "none"
    assert (offsets(log), partitions_of(log, TOPIC), opened(log, TOPIC)) == ([], [], None)
    assert covered_offsets(log, *PLACE) == (0, -1)
    vacuum(log, TOPIC)
    assert not log.exists()


def test_what_was_added_before_an_error_is_not_added_again(raw_log: Log) -> None:
    table = created(raw_log, TOPIC)
    assert add(table, 0, 5)
    assert add(table, 0, 5)
    assert add(table, 5, 7)
    assert offsets(raw_log) == list(range(7))


def test_who_has_lost_the_partition_cannot_add_to_it(raw_log: Log) -> None:
    zombie = created(raw_log, TOPIC)
    assert add(zombie, 0, 5)
    assert add(created(raw_log, TOPIC), 5, 9)
    assert not add(zombie, 5, 7)
    assert offsets(raw_log) == list(range(9))


def test_of_two_writers_at_the_same_moment_one_commits(
    raw_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_late(table: DeltaTable, rows: pa.Table, **options: Any) -> None:
        with monkeypatch.context() as undone:
            undone.setattr(delta_tables, "write_deltalake", write_deltalake)
            assert add(created(raw_log, TOPIC), 5, 9)  # the partition's new owner
        write_deltalake(table, rows, **options)

    zombie = created(raw_log, TOPIC)
    assert add(zombie, 0, 5)
    monkeypatch.setattr(delta_tables, "write_deltalake", write_late)
    with pytest.raises(OutageError, match="oncurrent"):
        add(zombie, 5, 7)
    assert not add(zombie, 5, 7)
    assert offsets(raw_log) == list(range(9))


def test_offsets_without_rows_are_logged_too(raw_log: Log) -> None:
    table = created(raw_log, TOPIC)
    nothing = table_of(TOPIC, [])
    assert append(table, nothing, {PARTITION: range(0, 4)})
    assert covered_offsets(raw_log, *PLACE) == (0, 3)
    assert add(table, 4, 6)
    assert covered_offsets(raw_log, *PLACE) == (0, 5)
    assert next_offset(table, PARTITION + 1) is None


def test_rows_are_read_in_order_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_tables, "_ROWS_AT_ONCE", 4)
    late = MIDNIGHT_MS - 1  # of the day before, though it comes after midnight
    write(tmp_path, 18, 23)
    write_log(tmp_path, [(a_behavior(), late)], PARTITION, 23)
    write(tmp_path, 24, 26)
    found = [[row["offset"] for row in some] for some in read_rows(tmp_path, *PLACE)]
    assert [each for some in found for each in some] == list(range(18, 26))
    assert max(map(len, found)) == 4
    some = read_rows(tmp_path, *PLACE, MIDNIGHT_MS, MIDNIGHT_AT + 1)
    assert [row["offset"] for each in some for row in each] == [21, 22, 24, 25]


def test_dates_before_a_day_leave_the_log_and_then_the_disk(raw_log: Log) -> None:
    write(raw_log, 0, 25)
    write_log(raw_log, [(a_label("r", "u", "i"), NOON_MS)])
    assert remove_before(raw_log, TOPIC, date(2023, 11, 15)) == ["2023-11-14"]
    assert offsets(raw_log) == list(range(20, 25))
    assert covered_offsets(raw_log, *PLACE) == (25, 24)  # some earlier ones are gone
    assert remove_before(raw_log, TOPIC, date(2023, 11, 15)) == []
    assert len(files(raw_log)) == 2
    vacuum(raw_log, TOPIC, at_once=True)
    assert len(files(raw_log)) == 1
    assert remove_before(raw_log, LABELS_TOPIC, date(2023, 12, 1)) == ["2023-11-14"]
    write(raw_log, 25, 30)  # a writer continues where it was
    assert remove_before(raw_log, TOPIC, date(2023, 12, 1)) == ["2023-11-15"]
    assert covered_offsets(raw_log, *PLACE) == (30, 29)


def test_what_a_kill_left_is_removed_after_hours_not_what_is_being_written(
    tmp_path: Path,
) -> None:
    write(tmp_path, 0, 5)
    whole = tmp_path / TOPIC / files(tmp_path)[0]
    left, new = whole.with_name("part-left.parquet"), whole.with_name("part-new.parquet")
    for path in (left, new):
        path.write_bytes(whole.read_bytes())
    long_ago = time.time() - 7 * 3600
    os.utime(left, (long_ago, long_ago))
    vacuum(tmp_path, TOPIC, at_once=True)
    assert {Path(path).name for path in files(tmp_path)} == {whole.name, new.name}
    assert offsets(tmp_path) == list(range(5))


def test_a_table_that_lacks_columns_or_has_more_is_read_and_written(raw_log: Log) -> None:
    table = table_of(TOPIC, rows_between(0, 2)).drop_columns(["propensity", "action"])
    older = {PARTITION: range(0, 2)}
    write_deltalake(f"{raw_log}/{TOPIC}", table, partition_by=["date", "partition"])
    assert append(created(raw_log, TOPIC), table, older) is True
    assert len(rows(raw_log)) == 4
    newer = table_of(TOPIC, rows_between(2, 3)).append_column("mood", pa.array(["gay"]))
    taken = {PARTITION: range(2, 3)}
    assert append(created(raw_log, TOPIC), newer, taken)
    write(raw_log, 3, 4)
    assert dataset(raw_log, TOPIC).to_table(["mood"])["mood"].to_pylist().count("gay") == 1
    assert [row["offset"] for row in rows(raw_log)][-2:] == [2, 3]
    assert rows(raw_log)[-1]["action"] == "view"


def test_files_of_no_table_are_refused_and_named(tmp_path: Path) -> None:
    old = tmp_path / TOPIC / "date=2023-11-14"
    old.mkdir(parents=True)
    (old / "3-0-9.parquet").touch()
    with pytest.raises(MistakeError, match=rf"{TOPIC} has Parquet files .*upgrade\.md"):
        offsets(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 broken", b"PAR1 brokPAR1\4\0\0\0PAR1"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, 0, 5)
    path = tmp_path / TOPIC / files(tmp_path)[0]
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path} is damaged"):
        offsets(tmp_path)


def test_the_tables_own_log_has_no_ids(tmp_path: Path) -> None:
    shown = an_impression("secret-item", user_id="secret-user", request_id="secret-r")
    write_log(tmp_path, [(shown, NOON_MS)])
    for path in (tmp_path / TOPIC / "_delta_log").iterdir():
        assert b"secret" not in path.read_bytes()


def test_a_file_removed_meanwhile_is_an_outage_to_try_again(tmp_path: Path) -> None:
    write(tmp_path, 0, 10)
    before = dataset(tmp_path, TOPIC)
    for path in Path(tmp_path, TOPIC).glob("date=*/*/*.parquet"):
        path.unlink()
    DeltaTable(f"{tmp_path}/{TOPIC}").delete()
    with pytest.raises(OutageError, match="try again"), reading(tmp_path):
        before.to_table()


def test_rows_are_read_from_a_folder_whose_name_has_special_characters(
    tmp_path: Path,
) -> None:
    log = tmp_path / "a log, 50 % #ü"
    write(log, 18, 23)
    assert offsets(log) == [*range(18, 23)]
    assert dataset(log, TOPIC).count_rows() == 5
