"""The same replayed slates, ranked by the model and by popularity → the paired difference.

Both rankers get the same slates of the same users, whose clicks were recorded before: each
visit is its own control. Visits of one user are dependent, so the standard error is
clustered by user.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import NormalDist

import numpy as np

from srp4ctr.demo.replay import ReplayedSlate
from srp4ctr.training.evaluation import metrics

_Z = NormalDist().inv_cdf(0.975)  # a two-sided 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCtr:
    """Replayed CTR at position 1: the model's less popularity's."""

    difference: float
    low: float | None
    """``low`` to ``high`` is the 95 % interval; None where there is only one user."""
    high: float | None
    users: int
    visits: int

    def sentence(self) -> str:
        """Return the comparison as one line."""
        interval = "no interval: one user"
        if self.low is not None and self.high is not None:
            interval = f"95 % interval {self.low:+.3f} to {self.high:+.3f}"
        return (
            f"Paired difference, model less popularity: {self.difference:+.3f}"
            f" ({interval}), {self.users:,} users, {self.visits:,} visits"
        )


def most_popular(slate: ReplayedSlate, clicks: Counter[str]) -> str:
    """Return the slate's item with the most earlier ``clicks``."""
    # Ties go to the first by id: the model's order would give the baseline its skill.
    return max(sorted(slate.item_ids), key=lambda item: clicks[item])


def paired_ctr(slates: Sequence[ReplayedSlate], clicks: Counter[str]) -> PairedCtr:
    """Return the difference over ``slates``, which are in the model's order."""
    by_model = np.array([slate.item_ids[0] in slate.clicked for slate in slates])
    by_popularity = np.array([most_popular(s, clicks) in s.clicked for s in slates])
    users = np.array([slate.user_id for slate in slates])
    found = metrics.mean_difference(by_model, by_popularity, users)
    spread = _Z * found.standard_error
    return PairedCtr(
        difference=found.value,
        low=found.value - spread if isfinite(spread) else None,
        high=found.value + spread if isfinite(spread) else None,
        users=len(set(users.tolist())),
        visits=len(slates),
    )
