"""Standard errors are held to a bootstrap over users, their use to how often it errs."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from srp4ctr.training.evaluation import quality

Floats = NDArray[np.float64]
METRICS = ("log_loss", "auc", "gauc", "ctr_at_1")
WITHIN = ("gauc", "ctr_at_1")  # requests


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


def difference(metric: str, rows: dict[str, NDArray[np.generic]]) -> quality.Difference:
    clicked, one, other, users = (rows[n] for n in ("clicked", "one", "other", "users"))
    if metric in WITHIN:
        measure = getattr(quality, f"{metric}_difference")
        found: quality.Difference = measure(clicked, one, other, rows["requests"], users)
        return found
    by_name = {"log_loss": quality.log_loss_difference, "auc": quality.auc_difference}
    return by_name[metric](clicked, one, other, users)


def plain(metric: str, rows: dict[str, NDArray[np.generic]]) -> float:
    measures: dict[str, Callable[..., float]] = {
        "log_loss": quality.log_loss,
        "auc": quality.auc,
        "gauc": quality.gauc,
        "ctr_at_1": quality.ctr_at_1,
    }
    more = (rows["requests"],) if metric in WITHIN else ()
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
    share = np.mean([each.value > each.margin for each in found])
    assert 0.01 < share < 0.09  # 0.05 and three deviations of 300 draws


@pytest.mark.parametrize("metric", METRICS)
def test_what_a_user_repeats_is_no_more_evidence(metric: str) -> None:
    rows = impressions(6)
    again = {name: np.tile(array, 4) for name, array in rows.items()}
    again["requests"] = np.concatenate([rows["requests"] + 100 * n for n in range(4)])
    once, found = difference(metric, rows), difference(metric, again)
    assert found.value == pytest.approx(once.value)
    assert found.standard_error == pytest.approx(once.standard_error)


def test_the_error_of_means_over_independent_users_is_the_textbook_s() -> None:
    rows = impressions(7)
    # Far apart: the difference itself is no part of its error.
    rows["other"] = np.subtract(1.0, rows["one"])
    clicked, requests = rows["clicked"], rows["requests"]
    rows["users"] = np.arange(len(clicked))
    losses = [quality.log_losses(clicked, rows[n]) for n in ("one", "other")]
    rows_of_requests = rows | {"users": requests}
    aucs = [quality.group_aucs(clicked, rows[n], requests) for n in ("one", "other")]
    for metric, found, (one, other) in (
        ("log_loss", difference("log_loss", rows), losses),
        ("gauc", difference("gauc", rows_of_requests), aucs),
    ):
        each = (one - other)[np.isfinite(one)]
        expected = each.std(ddof=1) / len(each) ** 0.5
        assert found.standard_error == pytest.approx(expected), metric


def test_the_error_of_the_auc_of_rare_clicks_is_delong_s() -> None:
    """Of independent users, whose scores have ties."""
    rows = impressions(8)
    rows["users"] = np.arange(len(rows["users"]))
    rows["clicked"] = np.where(np.arange(len(rows["users"])) % 10 == 0, rows["clicked"], 0)
    for name in ("one", "other"):
        rows[name] = np.asarray(rows[name], dtype=np.float64).round(1)
    is_click = np.asarray(rows["clicked"], dtype=np.bool_)
    apart = np.zeros((is_click.sum(), (~is_click).sum()))
    for name, sign in (("one", 1.0), ("other", -1.0)):
        scores = np.asarray(rows[name], dtype=np.float64)
        clicks, others = scores[is_click][:, None], scores[~is_click]
        apart += sign * ((clicks > others) + 0.5 * (clicks == others))
    number, found = len(is_click), difference("auc", rows)
    spreads = (apart.mean(axis).var() / apart.shape[1 - axis] for axis in (0, 1))
    expected = (sum(spreads) * number / (number - 1)) ** 0.5
    assert found.value == pytest.approx(apart.mean())
    assert found.standard_error == pytest.approx(expected)


def test_requests_weigh_by_their_impressions() -> None:
    rows = impressions(9)
    rows["requests"] = np.arange(len(rows["users"])) ** 2 // 1000  # ever shorter ones
    assert difference("gauc", rows).value == pytest.approx(plain("gauc", rows), abs=1e-12)


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
    assert np.isnan(difference("ctr_at_1", rows).value)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("users", [8, 40])
def test_an_interval_holds_the_truth_nineteen_times_in_twenty(
    metric: str, users: int
) -> None:
    """Of models that are alike the truth is 0."""
    found = [difference(metric, impressions(seed, users)) for seed in range(300)]
    share = np.mean([abs(each.value) <= each.spread() for each in found])
    assert 0.91 < share < 0.99  # 0.95 and three deviations of 300 draws


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (1000, 1.9623)],
)
def test_the_quantiles_are_those_of_student_s_tables(freedom: int, expected: float) -> None:
    found = quality.student_quantile(0.975, freedom)
    assert found == pytest.approx(expected, abs=1e-3)


def test_of_several_comparisons_the_interval_is_wider() -> None:
    found = quality.Difference(value=0.0, standard_error=1.0, users=1000)
    assert found.spread(10) == pytest.approx(2.814, abs=1e-3)
    assert quality.Difference(value=0.0, standard_error=0.0, users=1).spread() == np.inf
