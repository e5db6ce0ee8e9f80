"""Score → evaluation: hold out the newest requests, calibrate on half, judge on the rest.

In: slates by time, and a trained model. Out: the calibration, the metrics of slates that
neither training nor calibration saw, and their gates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from srp4ctr.errors import OutageError
from srp4ctr.features import columns
from srp4ctr.features.bundles.gates import Gate, Phase, finite, gates_of, skipped
from srp4ctr.training.config import MIN_REQUESTS, RefreshConfig
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import quality
from srp4ctr.training.evaluation.calibration import Calibration, fit_platt
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import serving_logits

Floats = NDArray[np.float64]
_NO_MARGIN = "its margin of error is unknown"
_ONE_KIND = "the judged impressions have not both a click and a non-click"
_POPULARITY = columns.CANDIDATE.place("item_click_rate_168h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Requests by time: for training, then calibration, then evaluation."""

    train: Slates
    calibrate: Slates
    judge: Slates


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The shown impressions of the evaluation slates, and a model's scores."""

    clicked: Floats
    probabilities: Floats
    """Of a click in the slate: calibrated, and of a sampled one corrected by its draws."""
    ranking: Floats
    """What serving orders a request's candidates by, corrected in the same way."""
    requests: NDArray[np.int64]
    users: NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The evaluation of a model on the held-out slates."""

    calibration: Calibration
    metrics: Mapping[str, float]
    """Metrics of the evaluation slates; undefined ones are absent."""
    gates: tuple[Gate, ...]
    judged: Scored


def boundary_ms(
    request_times_ms: NDArray[np.int64], held_out_share: float, from_ms: int = 0
) -> int:
    """Return the time from which requests are held out: the newest share of them.

    None before ``from_ms`` are, but at least two.

    ``OutageError`` if there are too few yet, or no time before the newest.
    """
    total = len(request_times_ms)
    if total < MIN_REQUESTS:
        raise OutageError(
            f"only {total} requests have matured labels; at least {MIN_REQUESTS} are"
            " needed to train and to evaluate on: publish more impressions and clicks"
        )
    held_out = max(int(total * held_out_share), 2)
    times_ms = np.sort(request_times_ms)
    boundary = max(int(times_ms[total - held_out]), min(from_ms, int(times_ms[-2])))
    # Requests of one instant stay together: none is trained on from its own time.
    if boundary == int(times_ms[0]):
        raise OutageError(
            f"{total} requests, all of one time: there is no past to train on yet"
        )
    return boundary


def split(slates: Slates, boundary: int) -> Split:
    """Return ``slates`` (by time) in three parts: ``train`` ends before ``boundary``."""
    total = len(slates)
    first = int(np.searchsorted(slates.request_at_ms, boundary))
    middle = first + (total - first) // 2
    return Split(
        train=slates.take(slice(first)),
        calibrate=slates.take(slice(first, middle)),
        judge=slates.take(slice(middle, total)),
    )


def evaluate(model: SRP4CTR, parts: Split, config: RefreshConfig) -> Evaluation:
    """Calibrate ``model`` in place, and evaluate it on the evaluation slates.

    Sampled slates have no click rate to calibrate to: their scores stay as trained.
    """
    shown = parts.calibrate.shown
    fitted = Calibration()
    if not parts.judge.are_sampled:
        logits = serving_logits(model, parts.calibrate).click
        fitted = fit_platt(parts.calibrate.clicked[shown], logits[shown])
    with torch.no_grad():
        model.head.click.calibration_scale.fill_(fitted.scale)
        model.head.click.calibration_bias.fill_(fitted.bias)
    of_judged = serving_logits(model, parts.judge)
    judged = scored(parts.judge, fitted.probabilities(of_judged.click), of_judged.ranking)
    measured = _measure(parts.judge, judged)
    return Evaluation(
        calibration=fitted,
        metrics={name: value for name, value in measured.items() if np.isfinite(value)},
        gates=gates(
            Judgement(measured=measured, judged=judged, config=config),
            are_sampled=parts.judge.are_sampled,
        ),
        judged=judged,
    )


def scored(
    slates: Slates, probabilities: NDArray[np.generic], ranking: NDArray[np.generic]
) -> Scored:
    """Return the shown impressions of ``slates`` with their scores (R, N)."""
    shown, log_draw = slates.shown, slates.log_draw[slates.shown].astype(np.float64)
    served = np.asarray(probabilities[shown], dtype=np.float64)
    request = np.broadcast_to(np.arange(len(slates))[:, None], shown.shape)[shown]
    _, user = np.unique(slates.user_ids, return_inverse=True)  # a number, not a name, each
    return Scored(
        clicked=slates.clicked[shown].astype(np.float64),
        probabilities=_in_slate(served, log_draw) if slates.are_sampled else served,
        ranking=np.asarray(ranking[shown], dtype=np.float64) - log_draw,
        requests=request,
        users=user[request],
    )


def _in_slate(probabilities: Floats, log_draw: Floats) -> Floats:
    """Return the probabilities of a click in slates with negatives that were drawn."""
    odds = probabilities / np.maximum(1.0 - probabilities, np.finfo(np.float32).tiny)
    corrected: Floats = odds / (odds + np.exp(log_draw))
    return corrected


def served_probabilities(slates: Slates, judged: Scored) -> Floats:
    """Return the scores that serving returns for what ``judged`` has of ``slates``."""
    if not slates.are_sampled:
        return judged.probabilities
    log_draw = slates.log_draw[slates.shown].astype(np.float64)
    return _in_slate(judged.probabilities, -log_draw)


def _measure(slates: Slates, judged: Scored) -> dict[str, float]:
    clicked, predicted = judged.clicked, judged.probabilities
    measured = {
        "auc": quality.auc(clicked, predicted),
        "gauc": quality.gauc(clicked, judged.ranking, judged.requests),
        "ctr_at_1": _ctr_at_1(slates, judged),
        "log_loss": quality.log_loss(clicked, predicted),
        "judged_impressions": float(len(clicked)),
        "judged_clicks": float(clicked.sum()),
    }
    if slates.are_sampled:  # popularity is drawn out of them, and there is no click rate
        return measured
    popularity = slates.tensors["candidate_features"][..., _POPULARITY][slates.shown]
    return measured | {
        "calibration": quality.calibration(clicked, predicted),
        "calibration_standard_error": quality.calibration_standard_error(
            clicked, predicted
        ),
        "normalised_entropy": quality.normalised_entropy(clicked, predicted),
        # The item's click rate of the last week, the same for all users.
        "popularity_auc": quality.auc(clicked, popularity),
    }


def _ctr_at_1(slates: Slates, judged: Scored) -> float:
    if (slates.shown.sum(axis=1) <= 1).all():  # the only item is on top
        return float("nan")
    return quality.ctr_at_1(judged.clicked, judged.ranking, judged.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a gate on the judged slates reads."""

    measured: Mapping[str, float]
    """Metrics by name; NaN: undefined."""
    judged: Scored
    config: RefreshConfig


def gates(judgement: Judgement, *, are_sampled: bool = False) -> tuple[Gate, ...]:
    """Return the gates on the judged slates; what could not be measured is skipped.

    Each limit is widened by the margin of error (95 %) of so few impressions: a small
    shop's hundred judged impressions would be a lottery. Where not even the AUC is defined
    a bundle is refused, because its quality is unknown. Where negatives are sampled the
    slates measure less, and ``full_catalogue.results`` judge the bundle.
    """
    found = []
    for entry in gates_of(Phase.JUDGED):
        if are_sampled and entry.skipped_if_sampled:
            found.append(skipped(entry.name, entry.skipped_if_sampled))
        elif (gate := entry.load()(judgement)) is not None:
            found.append(gate)
    return tuple(found)


def judged_gate(judgement: Judgement) -> Gate | None:
    """Return a failure where no AUC is defined; None where one is."""
    judged = judgement.judged
    if np.isfinite(judgement.measured["auc"]):
        return None
    shown, clicks = len(judged.clicked), int(judged.clicked.sum())
    return Gate(
        gate="judged",
        passed=False,
        note=f"of {shown:,} judged impressions {clicks:,} were clicked: nothing says if "
        "the model finds clicks. See whether clicks arrive, or hold out more "
        "(training.held_out_share, training.held_out_clicks)",
    )


def auc_gate(judgement: Judgement) -> Gate:
    """Compare the AUC of the probabilities with its limit."""
    judged, value = judgement.judged, judgement.measured["auc"]
    even = np.zeros_like(judged.probabilities)  # without any order: AUC 1/2
    found = quality.auc_difference(judged.clicked, judged.probabilities, even, judged.users)
    # Of one user the AUC has no margin of error; it is held to its limit all the same.
    margin = 0.0 if np.isinf(found.margin) else found.margin
    if np.isnan(value):
        return skipped(
            "auc", "the judged impressions have not both a click and a non-click"
        )
    return _ranking_gate("auc", f"AUC {value:.4f}", value, judgement.config.min_auc, margin)


def gauc_gate(judgement: Judgement) -> Gate:
    """Compare the AUC within a request, by the ranking score, with its limit."""
    judged, value = judgement.judged, judgement.measured["gauc"]
    even = np.zeros_like(judged.ranking)
    margin = quality.gauc_difference(
        judged.clicked, judged.ranking, even, judged.requests, judged.users
    ).margin
    if np.isnan(value):
        return skipped("gauc", "no request has both a click and a non-click")
    shown = f"AUC within a request {value:.4f}"
    if np.isinf(margin):
        return skipped("gauc", f"{shown} is of one user: {_NO_MARGIN}")
    return _ranking_gate("gauc", shown, value, judgement.config.min_gauc, margin)


def _ranking_gate(name: str, shown: str, value: float, limit: float, margin: float) -> Gate:
    return Gate(
        gate=name,
        passed=value + margin >= limit,
        value=finite(value),
        limit=limit,
        note=f"{shown}; at least training.min_{name} {limit}, less a margin of error "
        f"{margin:.4f}",
    )


def calibration_gate(judgement: Judgement) -> Gate:
    """Compare predicted / clicked with 1."""
    measured, limit = judgement.measured, judgement.config.max_calibration_error
    calibration = measured["calibration"]
    margin = 1.96 * measured["calibration_standard_error"]
    if np.isnan(calibration):
        return skipped("calibration", "no judged impression was clicked")
    return Gate(
        gate="calibration",
        passed=abs(calibration - 1.0) - margin <= limit,
        value=finite(calibration),
        limit=limit,
        note=f"predicted / clicked {calibration:.3f}; off by at most "
        f"training.max_calibration_error {limit}, and a margin of error {margin:.3f}",
    )


def entropy_gate(judgement: Judgement) -> Gate:
    """Compare the log loss with that of the slice's own mean click rate."""
    judged, entropy = judgement.judged, judgement.measured["normalised_entropy"]
    mean = np.full_like(judged.probabilities, judged.clicked.mean())
    worse = quality.log_loss_difference(
        judged.clicked, judged.probabilities, mean, judged.users
    )
    name = "normalised_entropy"
    if np.isnan(entropy):
        return skipped(name, _ONE_KIND)
    if np.isinf(worse.margin):
        return skipped(name, f"{entropy:.4f} is of one user: {_NO_MARGIN}")
    return Gate(
        gate=name,
        passed=worse.value <= worse.margin,
        value=finite(entropy),
        limit=1.0,
        note=f"log loss / that of the mean click rate {entropy:.4f}; below 1, within the "
        "margin of error",
    )
