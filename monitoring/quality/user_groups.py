"""Sums by group of users → a ratio of two sums, and its variance.

The unit of every interval is the user: impressions of one user are not independent, since
the same tastes and habits are behind all of them. Users are hashed into groups, whose sums
are independent. Their number is fixed, so no user is remembered, sums of partitions add up,
and a label can be subtracted again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp4ctr.streams.events.schema import item_key

Floats = NDArray[np.floating[Any]]

# A variance from 256 independent sums has an error of 9 %, which t quantiles allow for.
NUM_GROUPS = 256


def user_group(user_id: str) -> int:
    """Return the group of a user, 0 to ``NUM_GROUPS`` - 1: the same in every process.

    It is independent of the hash that assigns users to a canary.
    """
    return item_key(user_id) % NUM_GROUPS


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioEstimate:
    """Ratios of two sums, of shape (…); NaN where there is nothing to divide by."""

    value: Floats
    variance: Floats
    """Of ``value``, by users; NaN with one group only."""
    effective_groups: Floats
    """(Σ n)² / Σ n², with the n of each group."""

    @property
    def effective_users(self) -> Floats:
        """(Σ n)² / Σ n², with the n of each user: estimated from the groups.

        Users that share a group look like one; infinite if there are too many.
        """
        with np.errstate(divide="ignore"):
            shared = np.maximum(1 / self.effective_groups - 1 / NUM_GROUPS, 0.0)
            return (1 - 1 / NUM_GROUPS) / shared


def ratio_of_sums(parts: ArrayLike, wholes: ArrayLike) -> RatioEstimate:
    """Return Σ parts / Σ wholes over groups; both are of shape (…, groups).

    The variance is the jackknife's, Σ (ratio without the group - ratio)². It allows for any
    dependence within a group, and for groups of unequal size.
    """
    numerators, weights = np.asarray(parts, float), np.asarray(wholes, float)
    total = weights.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = numerators.sum(-1) / total
        groups = total**2 / (weights**2).sum(-1)
        changes = (value[..., None] * weights - numerators) / (total[..., None] - weights)
        variance = (changes**2).sum(-1)
    return RatioEstimate(
        value=value,
        variance=np.where(groups > 1 + 1e-9, variance, np.nan),
        effective_groups=groups,
    )
