import numpy as np
import pytest

from srp4ctr.training.evaluation import quality
from srp4ctr.training.evaluation.calibration import Calibration, fit_platt


def draw(scale: float, bias: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=count)
    true = Calibration(scale=scale, bias=bias).probabilities(logits)
    return (generator.random(count) < true).astype(np.float32), logits


def test_the_scale_and_bias_that_made_the_clicks_are_found() -> None:
    fitted = fit_platt(*draw(scale=0.5, bias=-1.0))
    assert fitted.scale == pytest.approx(0.5, abs=0.05)
    assert fitted.bias == pytest.approx(-1.0, abs=0.05)


def test_calibrated_scores_predict_the_number_of_clicks() -> None:
    clicked, logits = draw(scale=0.3, bias=0.7)
    predicted = fit_platt(clicked, logits).probabilities(logits)
    assert quality.calibration(clicked, predicted) == pytest.approx(1.0, abs=1e-3)


def test_a_ranking_is_never_reversed() -> None:
    clicked, logits = draw(scale=2.0, bias=0.0, count=500)
    assert fit_platt(clicked, -logits).scale > 0


@pytest.mark.parametrize("clicked", [np.zeros(9), np.ones(9), np.zeros(0)])
def test_one_class_alone_calibrates_nothing(clicked: np.ndarray) -> None:
    assert fit_platt(clicked, np.zeros(len(clicked))) == Calibration()


def test_perfectly_separated_clicks_give_a_finite_scale() -> None:
    fitted = fit_platt(np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 1.0, 2.0]))
    assert np.isfinite([fitted.scale, fitted.bias]).all()


def test_a_ranking_that_is_worse_than_none_is_still_calibrated_on_the_whole() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=500)
    clicked = rng.uniform(size=500) < 1 / (1 + np.exp(1 + logits))  # the wrong way round
    fitted = fit_platt(clicked, logits)
    assert 0 < fitted.scale < 0.01
    assert fitted.probabilities(logits).sum() == pytest.approx(clicked.sum(), rel=1e-3)


def test_what_the_clicks_do_not_decide_stays_as_it_was() -> None:
    fitted = fit_platt(np.array([0.0, 1.0]), np.zeros(2))
    assert (fitted.scale, fitted.bias) == pytest.approx((1.0, 0.0))


def test_the_probability_of_a_rare_click_is_not_cut_off() -> None:
    made = Calibration().probabilities(np.array([-14.0, 14.0]))
    assert made == pytest.approx([np.exp(-14.0), 1.0 - np.exp(-14.0)], rel=1e-5)


def test_logits_that_are_far_too_sure_are_calibrated_too() -> None:
    clicked, logits = draw(scale=0.5, bias=-1.0, count=2000)
    fitted = fit_platt(clicked, 40.0 * logits)
    assert fitted.scale == pytest.approx(0.5 / 40.0, rel=0.3)
    assert fitted.bias == pytest.approx(-1.0, abs=0.2)
