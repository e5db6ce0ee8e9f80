from math import isnan
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.features import columns
from srp4ctr.features.bundles import drift_reference
from srp4ctr.features.bundles.drift_reference import (
    COLD_USER,
    MIN_VALUES,
    SCORE,
    UNSEEN_ITEM,
    Bins,
    Reference,
    best,
    reference_of,
    stability_index,
)

GENERATOR = np.random.default_rng(5)
NAMES = columns.CANDIDATE.names


def a_reference(requests: int = 400, items: int = 5) -> Reference:
    history = np.ones((requests, 3), dtype=np.int64)
    history[: requests // 4] = 0
    tensors = {
        "history_item_rows": history,
        "request_features": GENERATOR.normal(size=(requests, columns.REQUEST.width)),
        "candidate_features": GENERATOR.normal(
            size=(requests, items, columns.CANDIDATE.width)
        ),
    }
    shown = np.ones((requests, items), dtype=bool)
    shown[:, -1] = False
    is_known = GENERATOR.uniform(size=shown.shape) < 0.9
    scores = GENERATOR.beta(2, 20, shown.sum())
    return reference_of(tensors, is_known, shown, scores, NAMES)


def test_a_spread_feature_has_ten_even_bins() -> None:
    bins = a_reference().bins["item_click_rate_168h"]
    assert len(bins.shares) == 10
    assert bins.shares == pytest.approx([0.1] * 10, abs=0.002)


def test_the_shares_of_cold_users_and_unseen_items_are_bins_too() -> None:
    found = a_reference()
    assert found.bins[COLD_USER].shares == (0.75, 0.25)
    assert found.bins[UNSEEN_ITEM].shares[1] == pytest.approx(0.1, abs=0.02)
    assert found.shown == 4


def test_the_hour_is_no_feature_that_drifts() -> None:
    assert "hour_sin" not in a_reference().bins


def test_a_heap_of_equal_values_is_one_bin() -> None:
    found = a_reference()
    values = np.concatenate([np.zeros(700), np.linspace(1, 2, 300)])
    bins = drift_reference._bins(values)
    assert bins.shares[0] == 0.7
    assert bins.count(np.zeros(10))[0] == 10
    constant = drift_reference._bins(np.zeros(100))
    assert constant.shares == (1.0,)
    assert all(len(each.shares) > 1 for each in found.bins.values())


def test_a_share_that_was_0_in_training_may_rise_in_service() -> None:
    shown = np.ones((50, 2), dtype=bool)
    tensors = {
        "history_item_rows": np.ones((50, 3), dtype=np.int64),
        "request_features": np.zeros((50, columns.REQUEST.width)),
        "candidate_features": np.zeros((50, 2, columns.CANDIDATE.width)),
    }
    found = reference_of(tensors, shown, shown, np.full(100, 0.5), NAMES)
    assert found.bins.keys() == {COLD_USER, UNSEEN_ITEM}
    assert found.bins[UNSEEN_ITEM] == Bins(edges=(0.5,), shares=(1.0, 0.0))


def test_the_same_spread_has_an_index_near_0_and_another_a_great_one() -> None:
    bins = a_reference().bins[SCORE]
    same = bins.count(GENERATOR.beta(2, 20, 20_000))
    moved = bins.count(GENERATOR.beta(2, 10, 20_000))
    assert stability_index(bins, same.tolist()) < 0.02
    assert stability_index(bins, moved.tolist()) > 0.3


def test_the_index_is_the_formulas() -> None:
    bins = Bins(edges=(0.5,), shares=(0.3, 0.7))
    expected = (0.8 - 0.3) * np.log(0.8 / 0.3) + (0.2 - 0.7) * np.log(0.2 / 0.7)
    assert stability_index(bins, [8000, 2000]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shares", "counts"), [((1.0, 0.0), [500, 500]), ((0.5, 0.5), [1000, 0])]
)
def test_an_empty_bin_has_a_great_index_and_a_finite_one(
    shares: tuple[float, float], counts: list[float]
) -> None:
    bins = Bins(edges=(0.5,), shares=shares)
    assert 1.0 < stability_index(bins, counts) < 10.0


def test_only_what_was_shown_is_counted() -> None:
    shown = np.zeros((40, 6), dtype=bool)
    shown[:30, :2] = shown[30:] = True  # 10 long slates do not make the usual one long
    tensors = {
        "history_item_rows": np.ones((40, 3), dtype=np.int64),
        "request_features": np.zeros((40, columns.REQUEST.width)),
        "candidate_features": np.zeros((40, 6, columns.CANDIDATE.width)),
    }
    scores = np.full(shown.sum(), 0.5)
    found = reference_of(tensors, shown, shown, scores, NAMES)  # padding is unknown
    assert found.bins[UNSEEN_ITEM].shares == (1.0, 0.0)
    assert found.shown == 2


def test_few_values_or_other_bins_say_nothing() -> None:
    bins = Bins(edges=(0.5,), shares=(0.5, 0.5))
    assert isnan(stability_index(bins, [MIN_VALUES - 1, 0]))
    assert not isnan(stability_index(bins, [MIN_VALUES, 0]))
    assert isnan(stability_index(bins, [1000, 0, 0]))


def test_the_best_of_a_request_are_compared_and_padding_never() -> None:
    scores = np.array([[0.1, 0.3, np.nan, 0.2], [np.nan, np.nan, np.nan, 0.5]])
    expected = [[False, True, False, True], [False, False, False, True]]
    assert best(scores, 2).tolist() == expected
    assert best(scores, 9).sum() == 4


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = a_reference()
    drift_reference.write_reference(tmp_path, written)
    assert drift_reference.read_reference(tmp_path) == written
    assert drift_reference.read_reference(tmp_path / "older") is None
    (tmp_path / drift_reference.REFERENCE_FILE).write_text('{"bins": 3}')
    assert drift_reference.read_reference(tmp_path) is None
