"""The two top places of explored requests → an AUC within a request.

Items of one request are at different positions, and a position's own attention would count
as the model's merit. Where the server explores, each of two items may be on top, with known
propensities: pairs are weighted by their inverse, so both orders weigh the same. Without
exploration there is no such AUC.
"""

from dataclasses import dataclass, field
from math import nan

from srp4ctr.monitoring.quality.confidence_intervals import UNKNOWN, Interval, symmetric
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS, ratio_of_sums

MIN_PAIRS = 100  # of a clicked and an unclicked item: below, the AUC is no normal variable

RequestKey = tuple[str, str]  # user, request: a request's id is its user's own


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuc:
    """AUC over the top pairs of requests; NaN with too few pairs or no exploration."""

    value: float = nan
    interval: Interval = UNKNOWN


@dataclass(frozen=True, slots=True)
class TopItem:
    """What was shown at position 0 or 1 of an explored request."""

    score: float
    propensity: float  # below 1: otherwise the other order is never shown
    is_click: bool


def _no_sums() -> list[float]:
    return [0.0] * NUM_GROUPS


@dataclass(slots=True)
class RequestPairs:
    """Weights of the pairs with one click, by group of users."""

    num_pairs: int = 0
    won: list[float] = field(default_factory=_no_sums)
    """Weights of the pairs whose clicked item scored higher; of ties, half."""
    weights: list[float] = field(default_factory=_no_sums)
    _tops: dict[RequestKey, dict[int, TopItem]] = field(default_factory=dict)

    def update(
        self, request: RequestKey, group: int, position: int, item: TopItem, sign: int
    ) -> None:
        """Add the item at ``position``, 0 or 1, or subtract it again."""
        top = self._tops.setdefault(request, {})
        if sign > 0:
            top[position] = item
        if len(top) == 2:
            self._count(group, top[0], top[1], sign)
        if sign < 0:
            top.pop(position, None)
            if not top:
                del self._tops[request]

    def add(self, other: "RequestPairs") -> None:
        """Add the pairs of ``other``, which has other requests."""
        self.num_pairs += other.num_pairs
        self.won = [a + b for a, b in zip(self.won, other.won, strict=True)]
        self.weights = [a + b for a, b in zip(self.weights, other.weights, strict=True)]

    def auc(self) -> RequestAuc:
        """Return the AUC of the pairs."""
        if self.num_pairs < MIN_PAIRS:
            return RequestAuc()
        found = ratio_of_sums(self.won, self.weights)
        value, groups = float(found.value), float(found.effective_groups)
        interval = symmetric(value, float(found.variance), groups)
        return RequestAuc(value=value, interval=interval)

    def _count(self, group: int, first: TopItem, second: TopItem, sign: int) -> None:
        if first.is_click == second.is_click:
            return
        clicked, other = (first, second) if first.is_click else (second, first)
        wins = (clicked.score > other.score) + (clicked.score == other.score) / 2
        weight = 1.0 / (first.propensity * second.propensity)
        self.num_pairs += sign
        self.weights[group] += sign * weight
        self.won[group] += sign * weight * wins
