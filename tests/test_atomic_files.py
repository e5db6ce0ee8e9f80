"""A status file is read as it was written, or not at all."""

import os
import threading
from pathlib import Path

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.features.consistency.report import FeatureCheck


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = FeatureCheck(checked_at_ms=5, rows=3, wrong_counters=1, details=("x",))
    path = tmp_path / "new" / "check.json"
    write_json(path, found)
    assert read_json(path, FeatureCheck) == found
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_is_missing_or_of_another_release_is_none(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    assert read_json(path, FeatureCheck) is None
    for text in ("", "{", '{"rows": 3}', '{"checked_at_ms": "noon", "rows": 3}'):
        path.write_text(text, encoding="utf-8")
        assert read_json(path, FeatureCheck) is None


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path, failures = tmp_path / "check.json", list[BaseException]()

    def write(rows: int) -> None:
        check = FeatureCheck(checked_at_ms=1, rows=rows, details=("x" * 50_000,))
        try:
            for _ in range(20):
                write_json(path, check)
                assert read_json(path, FeatureCheck) is not None
        except BaseException as failure:
            failures.append(failure)

    writers = [threading.Thread(target=write, args=(rows,)) for rows in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_json(tmp_path / "check.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "check.json").stat().st_mode & 0o777 == 0o644
