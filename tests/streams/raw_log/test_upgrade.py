"""A raw log of release 0.2 becomes Delta Lake tables with the same rows, each once."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.errors import ArtifactError
from srp4ctr.streams.raw_log.delta_tables import Log, covered_offsets
from srp4ctr.streams.raw_log.log_tables import table_of
from srp4ctr.streams.raw_log.upgrade import upgrade
from tests.streams.logs import PARTITION, TOPIC, offsets, rows, rows_between, write


def old_files(log: Path, start: int, end: int, left_out: Sequence[str] = ()) -> None:
    """Write a file for each date, as release 0.2 did, of offsets ``start`` to ``end``."""
    table = table_of(TOPIC, rows_between(start, end + 1))
    for date in sorted(set(table["date"].to_pylist())):
        of_date = [each == date for each in table["date"].to_pylist()]
        folder = log / TOPIC / f"date={date}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{PARTITION}-{start}-{end}.parquet"
        kept = table.filter(of_date).drop_columns(["date", *left_out])
        pq.write_table(kept, folder / name)


def a_log(log: Path) -> Path:
    for start, end in ((4, 9), (10, 14), (15, 24), (25, 29)):  # of two dates
        old_files(log, start, end)
    (log / ".lock").touch()
    return log


def old_ones(log: Path) -> list[str]:
    return sorted(path.name for path in (log / TOPIC).glob("date=*/*.*"))


def test_every_row_is_in_the_tables_and_the_old_files_are_gone(
    tmp_path: Path, raw_log: Log
) -> None:
    old, progress = a_log(tmp_path / "events"), list[int]()
    assert upgrade(old, raw_log, progress.append) == sum(progress) == 26
    assert offsets(raw_log) == list(range(4, 30))
    assert covered_offsets(raw_log, TOPIC, PARTITION) == (4, 29)
    assert rows(raw_log)[3]["item_id"] == "i1"
    assert old_ones(old) == []
    assert not (old / ".lock").exists()
    write(raw_log, 30, 32)  # workers continue
    assert offsets(raw_log) == list(range(4, 32))
    assert upgrade(old, raw_log, progress.append) == 0


def test_what_files_repeat_and_lack_after_crashes_is_there_once(tmp_path: Path) -> None:
    old_files(tmp_path, 0, 4)
    old_files(tmp_path, 5, 24)
    day = tmp_path / TOPIC / "date=2023-11-14"
    (day / f"{PARTITION}-5-24.parquet").unlink()  # killed between the files of two dates
    for start, end in ((5, 8), (3, 12), (9, 19), (20, 24)):
        old_files(tmp_path, start, end)
    old_files(tmp_path, 25, 29, left_out=["propensity"])  # of an older release
    upgrade(tmp_path, tmp_path, lambda _: None)
    assert offsets(tmp_path) == list(range(30))


@pytest.mark.parametrize("files", [1, 3, 5])
def test_a_call_that_was_killed_is_made_again(tmp_path: Path, files: int) -> None:
    def killed(rows: int) -> None:
        done.append(rows)
        if len(done) == files:
            raise KeyboardInterrupt

    log, done = a_log(tmp_path), list[int]()
    with pytest.raises(KeyboardInterrupt):
        upgrade(log, log, killed)
    assert len(old_ones(log)) == 5  # nothing is removed before all is there
    assert upgrade(log, log, lambda _: None) == 26
    assert offsets(log) == list(range(4, 30))
    assert covered_offsets(log, TOPIC, PARTITION) == (4, 29)


def test_a_call_that_was_killed_at_its_end_moves_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    old, log = a_log(tmp_path / "old"), tmp_path / "new"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            upgrade(old, log, lambda _: None)
    assert upgrade(old, log, lambda _: None) == 0
    assert offsets(log) == list(range(4, 30))
    assert old_ones(old) == []


def test_a_table_that_workers_have_written_is_refused(tmp_path: Path) -> None:
    old, log = a_log(tmp_path / "old"), tmp_path / "new"
    write(log, 28, 32)
    with pytest.raises(ArtifactError, match="move it away and run this again"):
        upgrade(old, log, lambda _: None)
    assert len(old_ones(old)) == 5
    assert offsets(log) == list(range(28, 32))


def test_a_damaged_file_is_named_and_nothing_is_removed(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    [broken] = log.rglob(f"{PARTITION}-25-29.parquet")
    broken.write_bytes(b"PAR1 broken")
    with pytest.raises(ArtifactError, match=f"{broken} is damaged"):
        upgrade(log, log, lambda _: None)
    assert len(old_ones(log)) == 5


def test_the_command_moves_the_log_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = a_log(tmp_path / ".data" / "events")
    done = CliRunner().invoke(app, ["features", "upgrade-log"])
    assert done.exit_code == 0, done.output
    assert "moved: 26 rows" in done.output
    assert offsets(log) == list(range(4, 30))
