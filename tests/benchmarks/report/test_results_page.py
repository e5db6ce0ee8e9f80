"""The page of benchmarks: what the results say, a row per claim, and nothing besides."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import RESULTS
from benchmarks.__main__ import modules
from benchmarks.report.results_page import BY_HAND, MARK, PAGE, PARTS, UNKNOWN, page, rows

ROOT = PAGE.parents[1]
CLAIMS = [claim for claims in PARTS.values() for claim in claims]
# The figures of each seed, from which the file of the same name is made.
EVIDENCE_OF_OTHER_PAGES = {
    "click_quality.looks.jsonl": "docs/decisions/evaluation.md",
    "click_quality.seeds.jsonl": "docs/evidence.md",
    "pretraining.seeds.jsonl": "docs/evidence.md",
    "own_model.seeds.jsonl": "docs/own_model.md",
    "serving_memory.json": "docs/scaling.md",
    "shift.json": "docs/operators.md",
    "counters.json": "docs/decisions/evaluation.md",
    "delayed_feedback.json": "docs/decisions/evaluation.md",
}
CIRCUMSTANCES = {"date": "2027-01-31", "commit": "abc1234", "hardware": "8 cores, 32 GB"}
FOLDING: dict[str, Any] = {"rows": [{"length": 50, "flops_ratio": 20}]}
CONTAINERS: dict[str, Any] = {
    "services": 11,
    "events": 9000,
    "lost": 0,
    "restarts": 20,
    "not_healed": [],
    "failed": [],
    **CIRCUMSTANCES,
}


def a_page(folder: Path, **files: dict[str, Any]) -> str:
    """Return the page of results that hold only ``files``."""
    for name, found in files.items():
        (folder / f"{name}.json").write_text(json.dumps(found))
    return page(folder)


def run_of(text: str, command: str) -> list[str]:
    """Return the cells of the run of ``command``: number, date, commit and hardware."""
    (line, *_) = [line for line in text.splitlines() if line.endswith(f"`{command}` |")]
    return line.strip("| ").split(" | ")[:-1]


def number_of(text: str, command: str) -> str:
    """Return the number of the first claim that the run of ``command`` measured."""
    run, *_ = run_of(text, command)
    (line, *_) = [line for line in text.splitlines() if line.endswith(f" | {run} |")]
    return line.strip("| ").split(" | ")[1]


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(RESULTS), "make benchmarks-page"


def test_every_result_has_a_row_or_is_the_evidence_of_another_page() -> None:
    files = {path.name for path in RESULTS.iterdir()} - {BY_HAND}
    shown = {claim.run.file for claim, _ in rows(RESULTS)}
    assert files - shown - EVIDENCE_OF_OTHER_PAGES.keys() == set()
    for other in EVIDENCE_OF_OTHER_PAGES.values():
        assert (ROOT / other).is_file()


def test_everything_recorded_by_hand_has_a_row_and_still_holds() -> None:
    recorded = json.loads((RESULTS / BY_HAND).read_text())
    assert recorded["recorded_by_hand"] is True
    marked = {claim.run.entry for claim, each in rows(RESULTS) if each.by_hand}
    replaced = {claim.run.entry for claim, each in rows(RESULTS) if not each.by_hand}
    assert recorded["runs"].keys() - replaced == marked


def test_every_claim_is_a_sentence_with_a_command_that_exists() -> None:
    for claim in CLAIMS:
        assert re.fullmatch(r"[A-Z0-9][^|]+\.", claim.sentence)
        assert re.fullmatch(r"[^|]+[^|.]", claim.measure)
        if not claim.run.make:
            assert claim.run.benchmark in modules()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = {claim.run.make for claim in CLAIMS if claim.run.make}
    assert made | {"benchmarks-page"} <= set(targets)


def test_without_results_there_is_no_row(tmp_path: Path) -> None:
    assert "| run |" not in a_page(tmp_path)


def test_a_paired_gain_has_the_margin_of_its_seeds() -> None:
    reference = {"data": "KuaiRand-Pure", "model": "srp4ctr", "seeds": 5}
    gain = {"auc_minus_srp4ctr": -0.0026, "auc_minus_srp4ctr_se": 0.0002}
    bst = {**reference, "model": "bst", "seeds": 3, **gain}
    wanted = {"data": "KuaiRand-Pure", "model": "bst"}
    (claim,) = [each for each in CLAIMS if each.row == wanted]
    # Student's t of three seeds is 4.303.
    shown = claim.number({"rows": [reference, bst]})
    assert shown == "+0.0026 ± 0.0002 (95 % margin 0.0009)"


def test_a_result_brings_its_own_circumstances(tmp_path: Path) -> None:
    text = a_page(tmp_path, containers=CONTAINERS)
    assert number_of(text, "make containers") == "0 of 9,000 events lost"
    run = run_of(text, "make containers")
    assert run == ["1", "2027-01-31", "abc1234", "8 cores, 32 GB"]


def test_a_run_with_failed_steps_says_so(tmp_path: Path) -> None:
    text = a_page(tmp_path, containers=CONTAINERS | {"failed": ["restart: no answer"]})
    assert number_of(text, "make containers") == "0 of 9,000 events lost; failed steps: 1"


def test_what_a_result_does_not_say_is_not_recorded(tmp_path: Path) -> None:
    text = a_page(tmp_path, folding=FOLDING)
    assert number_of(text, "make bench NAME=folding") == "20×"
    assert run_of(text, "make bench NAME=folding") == ["1", *[UNKNOWN] * 3]


def test_a_new_result_takes_the_place_of_what_was_recorded_by_hand(tmp_path: Path) -> None:
    shutil.copy(RESULTS / BY_HAND, tmp_path)
    command, before = "make bench NAME=folding", page(tmp_path)
    assert number_of(before, command) == "21×"
    assert run_of(before, command)[1].endswith(MARK)
    text = a_page(tmp_path, folding=FOLDING | CIRCUMSTANCES)
    assert number_of(text, command) == "20×"
    assert run_of(text, command)[1:] == ["2027-01-31", "abc1234", "8 cores, 32 GB"]


def test_circumstances_recorded_by_hand_hold_for_their_file_alone(tmp_path: Path) -> None:
    shutil.copy(RESULTS / BY_HAND, tmp_path)
    shutil.copy(RESULTS / "folded_training.json", tmp_path)
    command = 'make bench NAME=folded_training ARGS="--data ebnerd"'
    assert run_of(page(tmp_path), command)[1] == f"2026-11-26 {MARK}"
    command = "make bench NAME=overload"
    text = a_page(tmp_path, overload={"bounded_share_at_twice": 0.9})
    assert number_of(text, command) == "90 %"
    assert run_of(text, command)[1:] == [UNKNOWN] * 3


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_a_row(part: str) -> None:
    assert any(claim in PARTS[part] for claim, _ in rows(RESULTS))
