"""Off-policy evaluation: logged rewards and propensities → another policy's reward.

In: from the log, rewards and the propensities that serving gave
(``features/tensors/schema.py``), and the other policy's probabilities of the same actions.
Out: its reward, with its error.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean reward and its standard error; NaN where the policies share no action."""

    value: float
    standard_error: float
    effective_samples: float
    """Effective sample size: (sum of weights)² / sum of their squares."""


def snips(rewards: ArrayLike, propensities: ArrayLike, target: ArrayLike) -> Estimate:
    """Return the mean reward of a target policy, self-normalised (Swaminathan & Joachims).

    V = sum(w r) / sum(w), w = target / propensity, and sqrt(sum(w² (r - V)²)) / sum(w) its
    error (NIPS 2015; delta method). All are of shape (n,): for the first place of a slate
    its propensity; for a whole slate the product of its places', and its summed reward.
    Raises ``ValueError`` for a propensity that is not in (0, 1].
    """
    rewards, shown = np.asarray(rewards, dtype=float), np.asarray(propensities, dtype=float)
    if np.any(~(shown > 0.0) | (shown > 1.0)):
        raise ValueError("a propensity is outside (0, 1]: was what is shown explored?")
    weights = np.asarray(target, dtype=float) / shown
    total, squares = float(weights.sum()), float((weights**2).sum())
    if total == 0.0:
        nan = float("nan")
        return Estimate(value=nan, standard_error=nan, effective_samples=0.0)
    value = float((weights * rewards).sum()) / total
    spread = float((weights**2 * (rewards - value) ** 2).sum())
    return Estimate(
        value=value,
        standard_error=float(np.sqrt(spread)) / total,
        effective_samples=total**2 / squares,
    )
