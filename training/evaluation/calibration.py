"""Logits → probabilities: sigmoid(scale * logit + bias), Platt's scaling.

In: held-out clicks, and logits made as serving makes them. Out: the scale and the bias.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS = 50  # Newton's method on two numbers converges in under ten
_MIN_SCALE = 1e-3
_RIDGE = 1e-3  # pseudo-observations: with little data the fit stays near (1, 0)


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
    """Return the scale and bias of minimal log loss; no calibration without both classes.

    The scale stays positive: a calibration must not reverse a ranking.
    """
    y = np.asarray(clicked, dtype=np.float64)
    x = np.asarray(logits, dtype=np.float64)
    if len(y) == 0 or y.min() == y.max():
        return Calibration()
    scale, bias = _fitted(np.stack([x, np.ones_like(x)], axis=1), y, np.array([1.0, 0.0]))
    if scale < _MIN_SCALE:  # the bias that belongs to another scale would be wrong
        scale = _MIN_SCALE
        (bias,) = _fitted(np.ones((len(x), 1)), y, np.zeros(1), offset=scale * x)
    return Calibration(scale=scale, bias=bias)


def _fitted(
    design: NDArray[np.float64],
    y: NDArray[np.float64],
    prior: NDArray[np.float64],
    offset: NDArray[np.float64] | float = 0.0,
) -> tuple[float, ...]:
    """Return the weights of minimal log loss of ``design @ weights + offset``."""
    weights = prior
    for _ in range(_STEPS):
        p = _sigmoid(design @ weights + offset)
        gradient = design.T @ (p - y) + _RIDGE * (weights - prior)
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(prior)), gradient)
        weights = weights - np.clip(step, -1.0, 1.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    return tuple(weights.tolist())


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))
    return result
