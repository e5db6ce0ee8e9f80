"""Standard errors are held to a bootstrap over users, their use to how often it errs."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from srp4ctr.training.evaluation import metrics
from srp4ctr.training.evaluation.metrics import ONE_SIDED

Floats = NDArray[np.float64]
METRICS = ("log_loss", "auc", "gauc")


def impressions(seed: int, users: int = 40) -> dict[str, NDArray[np.generic]]:
    """Return slates of five of users whose tastes both models share, with noise each."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 10)
    taste = random.normal(size=users)[user] + random.normal(size=len(user))
    one, other = (taste + random.normal(size=len(user)) for _ in range(2))
    return {
        "clicked": (random.random(len(user)) < _sigmoid(taste)).astype(np.float64),
        "one": _sigmoid(0.5 * one),
        "other": _sigmoid(0.5 * other),
        "requests": np.arange(len(user)) // 5,
        "users": user,
    }


def _sigmoid(x: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-x))
    return found


def difference(metric: str, rows: dict[str, NDArray[np.generic]]) -> metrics.Difference:
    clicked, one, other, users = (rows[n] for n in ("clicked", "one", "other", "users"))
    if metric == "gauc":
        return metrics.gauc_difference(clicked, one, other, rows["requests"], users)
    by_name = {"log_loss": metrics.log_loss_difference, "auc": metrics.auc_difference}
    return by_name[metric](clicked, one, other, users)


def plain(metric: str, rows: dict[str, NDArray[np.generic]]) -> float:
    measures: dict[str, Callable[..., float]] = {
        "log_loss": metrics.log_loss,
        "auc": metrics.auc,
        "gauc": metrics.gauc,
    }
    more = (rows["requests"],) if metric == "gauc" else ()
    one, other = (
        measures[metric](rows["clicked"], rows[n], *more) for n in ("one", "other")
    )
    return one - other


@pytest.mark.parametrize("metric", METRICS)
def test_the_difference_is_that_of_the_metrics(metric: str) -> None:
    rows = impressions(0)
    assert difference(metric, rows).value == pytest.approx(plain(metric, rows), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_that_of_drawing_users_again(metric: str) -> None:
    rows = impressions(1)
    random = np.random.default_rng(2)
    drawn = []
    for _ in range(200):
        chosen = random.integers(0, 40, 40)
        places = (chosen[:, None] * 10 + np.arange(10)).ravel()
        again = {name: array[places] for name, array in rows.items()}
        again["requests"] = np.arange(len(places)) // 5  # a user drawn twice is two
        drawn.append(plain(metric, again))
    error = difference(metric, rows).standard_error
    assert error == pytest.approx(float(np.std(drawn)), rel=0.25)


@pytest.mark.parametrize("metric", METRICS)
def test_models_that_are_alike_differ_beyond_the_margin_once_in_twenty(metric: str) -> None:
    found = [difference(metric, impressions(seed)) for seed in range(300)]
    share = np.mean([each.value > ONE_SIDED * each.standard_error for each in found])
    assert 0.01 < share < 0.09  # 0.05 and three deviations of 300 draws


def test_the_same_scores_do_not_differ() -> None:
    rows = impressions(3)
    rows["other"] = rows["one"]
    for metric in METRICS:
        found = difference(metric, rows)
        assert (found.value, found.standard_error) == (0.0, 0.0)


def test_of_one_user_no_difference_is_significant() -> None:
    rows = impressions(4, users=1)
    assert difference("log_loss", rows).margin == float("inf")


def test_without_clicks_the_auc_is_undefined() -> None:
    rows = impressions(5)
    rows["clicked"] = np.zeros(len(rows["users"]))
    assert np.isnan(difference("auc", rows).value)
    assert np.isnan(difference("gauc", rows).value)
