"""The simulation of verdicts: its sums are the monitor's, and its table is written."""

from dataclasses import asdict, replace
from math import nan
from pathlib import Path

import numpy as np
import pytest

from benchmarks.operations import verdicts
from benchmarks.operations.verdict_traffic import (
    HEAVY,
    LOOKS,
    Population,
    counts_at_top,
    explored_pairs,
    exploring_slates,
    slates_of,
    sums_of,
)
from srp4ctr.monitoring.quality.quality_sums import (
    ModelQuality,
    QualitySums,
    SettledImpression,
)
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS
from tests.monitoring.same_figures import assert_same

POPULATION = Population(users=60, requests=20, deviation=0.1, activity=HEAVY)


def test_sums_at_once_are_those_of_single_impressions() -> None:
    chance = np.random.default_rng(1)
    scores = chance.uniform(0.05, 0.6, (50, 3))
    slates = slates_of(scores, scores, eta=0.5)
    rows, groups = chance.integers(0, 50, 900), chance.integers(0, NUM_GROUPS, 900)
    clicked = chance.random((900, 3)) < slates.click_rates[rows]
    singly = QualitySums()
    for request, (row, group) in enumerate(zip(rows, groups, strict=True)):
        for position in range(3):
            impression = SettledImpression(
                model_version="v1",
                request=("u", f"r{request}"),
                user_group=int(group),
                position=position,
                shown_at=0,
                score=float(slates.scores[row, position]),
                is_click=bool(clicked[request, position]),
                is_late_click=False,
            )
            singly.update(impression, 1)
    together = sums_of(slates, rows, groups, clicked)
    found, expected = together.quality("v1"), singly.quality("v1")
    assert_same(without_sums_of_loss(found), without_sums_of_loss(expected))
    assert expected.auc.interval.low > 0.5


def without_sums_of_loss(quality: ModelQuality) -> ModelQuality:
    """Return the figures that the benchmark reads, which needs no interval of a loss."""
    return replace(
        quality, log_loss_nats=nan, normalized_entropy=nan, mean_reciprocal_rank=nan
    )


def test_requests_are_counted_by_the_hour_in_which_they_came() -> None:
    clicks, shown = counts_at_top(POPULATION, np.random.default_rng(2))
    assert clicks.shape == shown.shape == (LOOKS, NUM_GROUPS)
    assert shown[-1].sum() == 60 * 20
    assert (np.diff(shown, axis=0) >= 0).all()
    assert (clicks <= shown).all()


def test_the_true_auc_within_a_request_is_the_one_of_many_draws() -> None:
    chance = np.random.default_rng(3)
    tops = exploring_slates(chance.uniform(0.02, 0.3, (500, 4)), chance)
    many = Population(users=4000, requests=50, deviation=0.05)
    found = explored_pairs(many, tops, chance).auc()
    assert found.value == pytest.approx(tops.auc(many.tastes(chance)), abs=0.01)


def test_the_page_has_a_row_of_each_size_and_deviation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before {verdicts.BEGIN} old {verdicts.END} after", encoding="utf-8")
    monkeypatch.setattr(verdicts, "PAGE", page)
    populations = [
        asdict(Population(users=users, requests=requests, deviation=deviation))
        for users, requests in verdicts.SIZES
        for deviation in verdicts.DEVIATIONS
    ]
    compared = [row | {"false_verdicts": 0.0312, "difference": 0.94} for row in populations]
    covered = [row | dict.fromkeys(verdicts.INTERVALS, 0.951) for row in populations]
    verdicts.write_table(compared, covered, 4000)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert "old" not in text
    assert "| 500 × 100 | 0.05 | 3.1 % | 94.0 % to 95.1 % |" in text
    assert text.count("\n| ") == 1 + len(populations)


def test_a_run_that_was_cut_off_simulates_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "CACHE", tmp_path)
    jobs = [
        verdicts.Simulation(draw, (number,), runs=3, seed=number) for number in range(3)
    ]
    first = [verdicts.run(job) for job in jobs[:2]]
    jobs[1].file.write_text('["kept"]')
    verdicts.run(jobs[2])
    again = verdicts.simulate(jobs, workers=1)[draw]
    assert again[:2] == [first[0], ["kept"]]
    assert [each[0] for each in (again[0], again[2])] == [0, 2]
    assert again[0][1] != again[2][1]  # each has a seed of its own
    assert len({job.file for job in jobs}) == 3


def draw(number: int, runs: int, chance: np.random.Generator) -> list[float]:
    """Return a simulation's arguments and one number of its own chance."""
    return [number, chance.random(runs).sum()]
