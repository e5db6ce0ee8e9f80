from math import isnan

import pytest

from srp4ctr.features.bundles.drift_reference import COLD_USER, SCORE, Bins, Reference
from srp4ctr.monitoring.quality.drift import SNAPSHOT_S, Drift, FeatureDrift

REFERENCE = Reference(
    shown=5,
    bins={
        SCORE: Bins(edges=(0.1,), shares=(0.5, 0.5)),
        COLD_USER: Bins(edges=(0.5,), shares=(0.9, 0.1)),
    },
)


def cells(low: float, high: float, version: str = "v7") -> dict[tuple[str, str], float]:
    return {(version, f"{SCORE}/0"): low, (version, f"{SCORE}/1"): high}


def feature_drift(drift: Drift) -> FeatureDrift:
    (found,) = drift.feature_drifts({"v7": REFERENCE})
    return found


def test_a_distribution_as_in_training_has_no_drift() -> None:
    drift = Drift(window_s=3600)
    drift.observe(cells(5000, 5000), 10.0)
    assert feature_drift(drift).psi == pytest.approx(0.0)
    assert (feature_drift(drift).training_share, feature_drift(drift).live_share) == (
        0.5,
        0.5,
    )


def test_what_was_counted_before_the_window_is_left_out() -> None:
    drift = Drift(window_s=600)
    low = 0.0
    for turn in range(31):  # half an hour of low scores
        low = 1000.0 * turn
        drift.observe(cells(low, 0.0), turn * SNAPSHOT_S)
    assert feature_drift(drift).live_share == 0.0
    for turn in range(31, 43):
        drift.observe(cells(low, 1000.0 * (turn - 30)), turn * SNAPSHOT_S)
    assert feature_drift(drift).live_share == 1.0


def test_the_window_is_as_long_as_it_says_however_often_it_is_looked_at() -> None:
    drift = Drift(window_s=600)
    for second in range(0, 3601, 10):  # low scores until 610 s before the end
        drift.observe(cells(min(second, 2990), max(second - 2990, 0)), float(second))
    assert feature_drift(drift).live_share == 1.0
    assert len(drift._snapshots) <= 600 / SNAPSHOT_S + 2
    for second in range(3610, 3901, 10):
        drift.observe(cells(2990 + second - 3600, 610), float(second))
    assert feature_drift(drift).live_share == pytest.approx(0.5, abs=0.06)


def test_counters_that_keep_growing_in_one_dictionary_are_seen_to_grow() -> None:
    drift, counters = Drift(window_s=600), cells(5000, 0)
    for turn in range(12):
        drift.observe(counters, turn * SNAPSHOT_S)
        counters["v7", f"{SCORE}/1"] += 100.0
    assert feature_drift(drift).live_share == 1.0


def test_few_values_have_no_index_but_a_share() -> None:
    drift = Drift(window_s=600)
    drift.observe({("v7", f"{COLD_USER}/1"): 3.0, ("v7", f"{COLD_USER}/0"): 1.0}, 0.0)
    (found,) = drift.feature_drifts({"v7": REFERENCE})
    assert isnan(found.psi)
    assert (found.training_share, found.live_share) == (0.1, 0.75)


def test_a_version_without_a_reference_has_no_drift() -> None:
    drift = Drift(window_s=600)
    drift.observe(cells(5000, 5000) | cells(0, 9000, "v8"), 0.0)
    both = {
        m.model_version: m.live_share
        for m in drift.feature_drifts({"v7": REFERENCE, "v8": REFERENCE})
    }
    assert both == {"v7": 0.5, "v8": 1.0}
    assert list(drift.feature_drifts({})) == []
