"""The demo's control group: users whose slates are ranked by popularity, not by a model.

In: the history's events. Out: rankings that look like a model's, whose impressions carry
the version ``popularity``: the monitor then compares the two, as it compares two models.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from srp4ctr.streams.events.schema import Click, Event, Impression, in_sample

POPULARITY = "popularity"
SHARE = 0.2  # of the users
_PRIOR = 20.0  # impressions at the mean click rate that every item is given


@dataclass(frozen=True, slots=True, kw_only=True)
class PopularityRanking:
    """A ranking with the fields of ``demo.replay.Ranking``."""

    scores: tuple[float, ...]
    positions: tuple[int, ...]
    propensities: tuple[float, ...]
    model_version: str = POPULARITY
    feature_version: str = ""  # no click of the user changes it


class ControlGroup:
    """Ranks by the clicks that items had in the history."""

    def __init__(self, history: Iterable[Event]) -> None:
        self._clicks, self._shown = Counter[str](), Counter[str]()
        for event in history:
            if isinstance(event, Click):
                self._clicks[event.item_id] += 1
            elif isinstance(event, Impression):
                self._shown[event.item_id] += 1
        self._mean = self._clicks.total() / max(self._shown.total(), 1)

    def has(self, user_id: str) -> bool:
        """Return whether the user is in the group; by a hash, so always the same ones."""
        return in_sample(user_id, SHARE)

    def rank(self, item_ids: Sequence[str]) -> PopularityRanking:
        """Return the items by their clicks, ties by id; scores are smoothed click rates."""
        order = sorted(item_ids, key=lambda item: (-self._clicks[item], item))
        places = {item: place for place, item in enumerate(order)}
        return PopularityRanking(
            scores=tuple(map(self._rate, item_ids)),
            positions=tuple(places[item] for item in item_ids),
            propensities=(1.0,) * len(item_ids),
        )

    def _rate(self, item: str) -> float:
        clicks = self._clicks[item] + _PRIOR * self._mean
        return min(clicks / (self._shown[item] + _PRIOR), 1.0)
