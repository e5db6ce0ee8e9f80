from dataclasses import replace

import numpy as np
import pytest
import torch

from srp4ctr.errors import OutageError
from srp4ctr.features.bundles.gates import failed
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import quality
from srp4ctr.training.evaluation.evaluate import (
    Judgement,
    Scored,
    Split,
    boundary_ms,
    evaluate,
    gates,
    split,
)
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import serving_logits


def test_the_newest_requests_are_held_out_half_to_calibrate_half_to_judge(
    slates: Slates,
) -> None:
    parts = split(slates, boundary_ms(slates.request_at_ms, 0.2))
    assert parts.train.request_at_ms.tolist() == list(range(32))
    assert parts.calibrate.request_at_ms.tolist() == [32, 33, 34, 35]
    assert parts.judge.request_at_ms.tolist() == [36, 37, 38, 39]


def test_none_before_an_instant_are_held_out_but_at_least_two() -> None:
    assert boundary_ms(np.arange(1000), 0.1, from_ms=960) == 960
    assert boundary_ms(np.arange(1000), 0.1, from_ms=400) == 900
    assert boundary_ms(np.arange(1000), 0.1, from_ms=5000) == 998


def test_requests_of_the_boundarys_instant_are_all_held_out() -> None:
    times = np.array([1] * 20 + [2] * 10)
    assert boundary_ms(times, 0.1) == 2


def test_requests_of_one_instant_cannot_be_split() -> None:
    with pytest.raises(OutageError, match="no past to train on"):
        boundary_ms(np.full(30, 5), 0.1)


def test_too_few_requests_are_refused() -> None:
    with pytest.raises(OutageError, match="only 19 requests"):
        boundary_ms(np.arange(19), 0.1)


@pytest.fixture
def parts(slates: Slates) -> Split:
    """Twenty slates for training, ten for calibration, ten for evaluation."""
    return split(slates, boundary_ms(slates.request_at_ms, 0.5))


def test_judging_puts_the_calibration_into_the_model(
    parts: Split, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes).eval()
    evaluation = evaluate(model, parts, recipe)
    shown = parts.calibrate.shown
    logits = torch.from_numpy(serving_logits(model, parts.calibrate).click[shown])
    predicted = model.head.click.answer(logits).numpy()
    clicked = parts.calibrate.clicked[shown]
    assert quality.calibration(clicked, predicted) == pytest.approx(1.0, abs=0.01)
    assert float(model.head.click.calibration_scale) == pytest.approx(
        evaluation.calibration.scale
    )


def test_without_a_judged_click_all_is_skipped_and_the_bundle_refused(
    parts: Split, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    nobody = replace(parts.judge, clicked=np.zeros_like(parts.judge.clicked))
    evaluation = evaluate(
        SRP4CTR(recipe.model, sizes), replace(parts, judge=nobody), recipe
    )
    assert "auc" not in evaluation.metrics
    (refused,) = failed(evaluation.gates)
    assert refused.gate == "judged"
    assert " 0 were clicked" in refused.note
    unmeasured = {gate.gate for gate in evaluation.gates if gate.passed is None}
    assert unmeasured == {"auc", "gauc", "calibration", "normalised_entropy"}


MEASURED = {
    "auc": 0.7,
    "gauc": 0.7,
    "calibration": 1.0,
    "calibration_standard_error": 0.02,
    "normalised_entropy": 0.9,
}
JUDGED = Scored(
    clicked=np.array([1.0, 0.0, 1.0, 0.0]),
    probabilities=np.array([0.6, 0.4, 0.6, 0.4]),
    ranking=np.array([0.6, 0.4, 0.6, 0.4]),
    requests=np.array([0, 0, 1, 1]),
    users=np.array(["a", "a", "b", "b"]),
)


LIMITS = RefreshConfig(min_auc=0.6, min_gauc=0.55, max_calibration_error=0.25)


def judged(**other: float) -> Judgement:
    """Return a judgement of two users that passes, but for ``other`` metrics."""
    return Judgement(measured=MEASURED | other, judged=JUDGED, config=LIMITS)


@pytest.mark.parametrize(("standard_error", "is_refused"), [(0.02, True), (0.15, False)])
def test_a_calibration_within_the_margin_of_error_is_not_refused(
    standard_error: float, is_refused: bool
) -> None:
    off = {"calibration": 0.7, "calibration_standard_error": standard_error}
    found = failed(gates(judged(**off)))
    assert [each.gate for each in found] == (["calibration"] if is_refused else [])


@pytest.mark.parametrize(("auc", "is_refused"), [(0.7, False), (0.4, True)])
def test_of_one_user_the_auc_alone_decides(auc: float, is_refused: bool) -> None:
    """The spread of one user is unknown: an infinite margin would let anything pass."""
    alone = replace(JUDGED, users=np.array(["a"] * 4))
    found = {gate.gate: gate for gate in gates(replace(judged(auc=auc), judged=alone))}
    assert found["auc"].passed is not is_refused
    for name in ("gauc", "normalised_entropy"):
        assert found[name].passed is None
        assert "one user" in found[name].note
    assert "judged" not in found


def test_a_model_that_predicts_far_too_little_is_refused() -> None:
    clicked = np.zeros(1000)
    clicked[:20] = 1.0
    little = np.full(1000, 0.0002)
    error = quality.calibration_standard_error(clicked, little)
    off = {"calibration": 0.01, "calibration_standard_error": error}
    found = failed(gates(judged(**off)))
    assert [each.gate for each in found] == ["calibration"]


def test_an_auc_and_that_within_a_request_have_limits_of_their_own() -> None:
    found = {gate.gate: gate for gate in gates(judged())}
    for name, limit in (("auc", 0.6), ("gauc", 0.55)):
        assert found[name].limit == limit
        assert f"training.min_{name} {limit}" in found[name].note
