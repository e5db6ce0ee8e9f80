"""The model's replayed slates against popularity: on the same slates, and a control group.

On the same slates both rankers get the same users, whose clicks were recorded before: each
visit is its own control. Visits of one user are dependent, so the standard error is
clustered by user. The control group's slates are ranked by a one-line rule instead, by
default popularity; their impressions have its name as version, so that the monitor compares
the two like two models.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import NormalDist

import numpy as np

from srp4ctr.demo.replay import ReplayedSlate
from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import Behavior, Click, Event, Impression, in_sample
from srp4ctr.training.evaluation import quality

POPULARITY, TOUCHED_LAST, TOUCHED_MOST = "popularity", "touched_last", "touched_most"
RULES = (POPULARITY, TOUCHED_LAST, TOUCHED_MOST)
"""Of the control group: clicks of all, or what the user acted on last or most often."""
SHARE = 0.2  # of the users
_PRIOR = 20.0  # impressions at the mean click rate that every item is given
_Z = NormalDist().inv_cdf(0.975)  # a two-sided 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRanking:
    """A ranking with the fields of ``demo.replay.SlateRanking``."""

    scores: tuple[float, ...]
    positions: tuple[int, ...]
    propensities: tuple[float, ...]
    model_version: str
    feature_version: str = ""  # no click of the user changes it
    experiment: str | None = None  # the group is by another hash than a canary's
    arm: str | None = None


class ControlGroup:
    """Ranks by one of ``RULES``: the clicks that items had in the history, or the user's.

    ``MistakeError`` for another rule.
    """

    def __init__(self, history: Iterable[Event], rule: str = POPULARITY) -> None:
        if rule not in RULES:
            raise MistakeError(f"--rule {rule!r}: one of {', '.join(RULES)}")
        self.rule = rule
        self._clicks, self._shown = Counter[str](), Counter[str]()
        self._last = defaultdict[str, dict[str, int]](dict)
        self._touches = defaultdict[str, Counter[str]](Counter)
        for event in history:
            if isinstance(event, Click):
                self._clicks[event.item_id] += 1
            elif isinstance(event, Impression):
                self._shown[event.item_id] += 1
            self.observe(event)
        self._mean = self._clicks.total() / max(self._shown.total(), 1)

    def observe(self, event: Event) -> None:
        """Remember what a user did, also during the replay."""
        if isinstance(event, Click | Behavior):
            self._last[event.user_id][event.item_id] = event.occurred_at
            self._touches[event.user_id][event.item_id] += 1

    def has(self, user_id: str) -> bool:
        """Return whether the user is in the group; by a hash, so always the same ones."""
        return in_sample(user_id, SHARE)

    def rank(self, user_id: str, item_ids: Sequence[str]) -> RuleRanking:
        """Return the items by the rule, ties by clicks, then by id.

        Scores are smoothed click rates, whatever the rule.
        """
        own = self._own(user_id)
        order = sorted(
            item_ids, key=lambda item: (-own.get(item, 0), -self._clicks[item], item)
        )
        places = {item: place for place, item in enumerate(order)}
        return RuleRanking(
            model_version=self.rule,
            scores=tuple(map(self._rate, item_ids)),
            positions=tuple(places[item] for item in item_ids),
            propensities=(1.0,) * len(item_ids),
        )

    def _own(self, user_id: str) -> Mapping[str, int]:
        if self.rule == TOUCHED_LAST:
            return self._last.get(user_id, {})
        return self._touches.get(user_id, {}) if self.rule == TOUCHED_MOST else {}

    def _rate(self, item: str) -> float:
        clicks = self._clicks[item] + _PRIOR * self._mean
        return min(clicks / (self._shown[item] + _PRIOR), 1.0)


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
    found = quality.mean_difference(by_model, by_popularity, users)
    spread = _Z * found.standard_error
    return PairedCtr(
        difference=found.value,
        low=found.value - spread if isfinite(spread) else None,
        high=found.value + spread if isfinite(spread) else None,
        users=len(set(users.tolist())),
        visits=len(slates),
    )
