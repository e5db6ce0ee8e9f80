"""Lists of items from several sources → the candidates to rank: a share of each source.

Serving and the evaluation over the whole catalogue call the same functions, so that the
evaluation ranks what serving would rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srp4ctr.streams.state.counters import HALF_LIVES_H

Int64s = NDArray[np.int64]
MAX_POPULAR = 1000
MAX_NEW = 200
NEW_MS = 7 * 86_400_000  # since an item was first seen
# Of the popular items, the share of those with the most clicks at each half-life: most of
# those that were clicked most in the last two hours are among them, and so is what lasts.
POPULAR_SHARES = {0.25: 0.25, 4.0: 0.5, 24.0: 0.25}
POPULAR_LIVES = [HALF_LIVES_H.index(hours) for hours in POPULAR_SHARES]
"""Their places among the half-lives of counters."""
LEAST_CLICKS = 1e-3  # decayed; of fewer an item is not popular
# Of a user without a history: the model knows only what is popular in training.
_COLD_SHARES = (1e-9, 0.95, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many candidates are ranked, and the share of each source."""

    candidates: int = 200
    popular: float = 0.4
    new: float = 0.05

    def of(self, is_cold: bool) -> tuple[float, float, float]:
        """Return the shares of model, popular and new; popular dominates if cold."""
        if is_cold:
            return _COLD_SHARES
        return (1.0 - self.popular - self.new, self.popular, self.new)


def blended(sources: Sequence[Int64s], shares: Sequence[float], most: int) -> Int64s:
    """Return the places of the first ``most`` distinct items in the joined ``sources``.

    At any depth each source has about its share of the items, for as long as it has any.
    """
    depths = np.concatenate(
        [
            (np.arange(len(keys)) + 0.5) / share if share else np.full(len(keys), np.inf)
            for keys, share in zip(sources, shares, strict=True)
        ]
    )
    order = np.argsort(depths, kind="stable")
    order = order[np.isfinite(depths[order])]
    _, first = np.unique(np.concatenate(sources)[order], return_index=True)
    places: Int64s = order[np.sort(first)[:most]]
    return places
