"""Score → calibrated score: Platt's scale and bias, fitted on held-out slates.

In: logits made as serving makes them (default position), and clicks that training never
saw. Out: two numbers, so that sigmoid(scale * logit + bias) is a probability.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS = 50  # Newton's method on two numbers settles in under ten
_RIDGE = 1e-3  # pseudo-observations that hold the fit near (1, 0) when data is scarce


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt's scaling of a logit."""

    scale: float = 1.0
    bias: float = 0.0

    def probabilities(self, logits: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return sigmoid(scale * logit + bias)."""
        scaled = self.scale * np.asarray(logits, dtype=np.float64) + self.bias
        result: NDArray[np.float64] = _sigmoid(scaled)
        return result


def fit_platt(clicked: NDArray[np.generic], logits: NDArray[np.generic]) -> Calibration:
    """Return the scale and bias of least log loss; no calibration without both classes.

    The scale stays positive: a calibration must not reverse a ranking.
    """
    y = np.asarray(clicked, dtype=np.float64)
    x = np.asarray(logits, dtype=np.float64)
    if len(y) == 0 or y.min() == y.max():
        return Calibration()
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights, prior = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(_STEPS):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - y) + _RIDGE * (weights - prior)
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -1.0, 1.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    return Calibration(scale=max(float(weights[0]), 1e-3), bias=float(weights[1]))


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))
    return result
