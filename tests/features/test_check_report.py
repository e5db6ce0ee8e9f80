"""What a check leaves for the monitor is read as it was written."""

from pathlib import Path

from srp4ctr.features.check_report import (
    REPORT_FILE,
    FeatureCheck,
    read_report,
    write_report,
)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = FeatureCheck(checked_at_ms=5, rows=3, wrong_counters=1, details=("x",))
    path = write_report(tmp_path / "new", found)
    assert path == tmp_path / "new" / REPORT_FILE
    assert read_report(path) == found
    assert [each.name for each in path.parent.iterdir()] == [REPORT_FILE]
    assert read_report(tmp_path / "nowhere.json") is None
