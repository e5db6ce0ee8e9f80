"""What a benchmark printed is kept with its circumstances, or not at all."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.harness.saved_result import (
    SEVERAL_RUNS,
    circumstances,
    refuse_several_runs,
    save,
)
from benchmarks.report.results_page import page

PRINTED = ["a table\n", '{"rows": [{"length": 50, "flops_ratio": 20.6}]}\n']


def test_the_last_line_is_kept_with_date_hardware_and_commit(tmp_path: Path) -> None:
    kept = json.loads(save("folding", PRINTED, tmp_path, circumstances()).read_text())
    assert kept["rows"] == [{"length": 50, "flops_ratio": 20.6}]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["date"])
    assert re.fullmatch(r"\d+ cores, \d+ GB", kept["hardware"])
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", kept.get("commit", "0000000"))


def test_the_page_shows_what_was_kept(tmp_path: Path) -> None:
    kept = json.loads(save("folding", PRINTED, tmp_path, circumstances()).read_text())
    shown = page(tmp_path)
    assert "| 21× |" in shown
    commit = kept.get("commit", "not recorded")
    assert f"| {kept['date']} | {commit} | {kept['hardware']} |" in shown


@pytest.mark.parametrize("printed", [[], ["a table\n"], ["[1]\n"]])
def test_what_ends_without_a_result_is_not_kept(printed: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing is saved"):
        save("folding", printed, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SEVERAL_RUNS)
def test_a_file_of_several_runs_is_left_alone(name: str) -> None:
    with pytest.raises(ValueError, match="several runs"):
        refuse_several_runs(name)
