"""Score → verdict: hold out the newest requests, calibrate on half, judge on the rest.

In: slates by time, and a trained model. Out: the calibration, the metrics of slates that
neither training nor calibration saw, and the gates that the bundle fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training import metrics
from training.batches import Slates
from training.calibration import Calibration, fit_platt
from training.config import RefreshConfig
from training.finetuning import serving_logits
from training.model.srp4ctr import SRP4CTR

MIN_REQUESTS = 20  # fewer leave nothing to hold out


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Requests by time: what is learnt, then what calibrates, then what judges."""

    train: Slates
    calibrate: Slates
    judge: Slates


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the held-out slates say of a model."""

    calibration: Calibration
    metrics: Mapping[str, float]
    """Of the judged slates; a metric that is undefined there is absent."""
    refusals: tuple[str, ...]
    """Why the bundle must not be promoted; empty if it may."""


def boundary_ms(request_times_ms: NDArray[np.int64], held_out_share: float) -> int:
    """Return the time from which requests are held out: the newest share of them.

    ``ValueError`` if there are too few, or no time before the newest.
    """
    total = len(request_times_ms)
    if total < MIN_REQUESTS:
        raise ValueError(
            f"only {total} requests have matured labels; at least {MIN_REQUESTS} are"
            " needed to learn from and to judge by: publish more impressions and clicks"
        )
    held_out = max(int(total * held_out_share), 2)
    times_ms = np.sort(request_times_ms)
    boundary = int(times_ms[total - held_out])
    # Requests of one instant stay together, so that none teaches about its own time.
    if boundary == int(times_ms[0]):
        raise ValueError(f"{total} requests, all of one time: there is no past to learn")
    return boundary


def split(slates: Slates, boundary: int) -> Split:
    """Return ``slates`` (by time) in three parts; nothing from ``boundary`` on teaches."""
    total = len(slates)
    first = int(np.searchsorted(slates.request_at_ms, boundary))
    middle = first + (total - first) // 2
    return Split(
        train=slates.take(np.arange(first)),
        calibrate=slates.take(np.arange(first, middle)),
        judge=slates.take(np.arange(middle, total)),
    )


def judge(model: SRP4CTR, parts: Split, config: RefreshConfig) -> Verdict:
    """Calibrate ``model`` in place, and return how it does on the judged slates."""
    shown = parts.calibrate.shown
    logits = serving_logits(model, parts.calibrate)
    fitted = fit_platt(parts.calibrate.clicked[shown], logits[shown])
    with torch.no_grad():
        model.head.calibration_scale.fill_(fitted.scale)
        model.head.calibration_bias.fill_(fitted.bias)
    measured = _measure(parts.judge, fitted, serving_logits(model, parts.judge))
    return Verdict(
        calibration=fitted,
        metrics={name: value for name, value in measured.items() if np.isfinite(value)},
        refusals=refusals(measured, config),
    )


def _measure(
    slates: Slates, calibration: Calibration, logits: np.ndarray
) -> dict[str, float]:
    shown = slates.shown
    clicked = slates.clicked[shown]
    promised = calibration.probabilities(logits[shown])
    requests = np.broadcast_to(np.arange(len(slates))[:, None], shown.shape)[shown]
    popularity = slates.tensors["candidate_features"][..., 2][shown]
    return {
        "auc": metrics.auc(clicked, promised),
        "gauc": metrics.gauc(clicked, promised, requests),
        "log_loss": metrics.log_loss(clicked, promised),
        "calibration": metrics.calibration(clicked, promised),
        "calibration_standard_error": metrics.calibration_standard_error(promised),
        "normalised_entropy": metrics.normalised_entropy(clicked, promised),
        # The item's click rate of the last week, as if everyone were alike.
        "popularity_auc": metrics.auc(clicked, popularity),
        "judged_impressions": float(shown.sum()),
        "judged_clicks": float(clicked.sum()),
    }


def refusals(measured: Mapping[str, float], config: RefreshConfig) -> tuple[str, ...]:
    """Return the gates that fail; a metric that is undefined fails its gate.

    A calibration that is off by what luck does to so few clicks (95 %) is not held
    against a bundle: a small shop's hundred judged impressions would be a lottery.
    """
    auc, calibration = measured["auc"], measured["calibration"]
    found = []
    if not auc >= config.min_auc:
        found.append(f"AUC {auc:.4f} is below training.min_auc {config.min_auc}")
    luck = 1.96 * measured["calibration_standard_error"]
    error = abs(calibration - 1.0)
    if not error - luck <= config.max_calibration_error:
        found.append(
            f"calibration {calibration:.3f} is further from 1 than "
            f"training.max_calibration_error {config.max_calibration_error}"
        )
    return tuple(found)
