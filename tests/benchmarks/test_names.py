"""Every benchmark is run by its name, wherever its file lies."""

import sys

import pytest

from benchmarks.__main__ import main, modules

# What ``make bench NAME=`` takes: names stay from release to release.
NAMES = (
    "catalogue_size",
    "click_quality",
    "evidence",
    "faults",
    "folded_training",
    "folding",
    "footprints",
    "ingest",
    "monitoring",
    "overload",
    "own_model",
    "point_in_time",
    "pretraining",
    "promotion",
    "raw_log",
    "replicas",
    "retrieval",
    "results_page",
    "rules_of_thumb",
    "serving",
    "soak",
    "tracing",
    "training_memory",
    "verdicts",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_shows_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", name, "--help"])
    # runpy warns of a module that another test has imported.
    monkeypatch.delitem(sys.modules, modules()[name], raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_no_benchmark_is_without_a_test_of_its_help() -> None:
    assert set(modules()) == set(NAMES)


def test_an_unknown_name_is_answered_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "sideways"])
    with pytest.raises(SystemExit, match="catalogue_size, click_quality"):
        main()
