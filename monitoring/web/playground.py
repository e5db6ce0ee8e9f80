"""The interface between the page and the playground, and the values that it shows.

The page's server knows no store, stream or Triton: it gets a ``Playground`` and turns its
answers into JSON. Errors that a person can fix are ValueError, RuntimeError or OSError with
a sentence that says how.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The users to choose from."""

    users: Sequence[str]
    """Users of recent events, the newest first."""
    can_rank: bool
    """False if no bundle was ever promoted."""
    advice: str
    """What to do first if something is missing, else ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """An item with its title and attributes."""

    item_id: str
    """Empty if the store has no profile of it: its title is its key then."""
    title: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownBehavior:
    """One element of a user's sequence."""

    item: ShownItem
    action: str
    at_ms: int
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownUser:
    """A user's sequence and attributes, as the feature store has them now."""

    user_id: str
    attributes: Mapping[str, str]
    behaviors: Sequence[ShownBehavior]
    """Newest first."""
    advice: str
    """For a user without a sequence, else ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """One candidate with its score."""

    item: ShownItem
    score: float | None
    notes: str
    """Where a recommended item comes from, and which features its score lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCost:
    """A request's cost by its bundle's cost card, and if re-encoded per candidate."""

    encoder_runs: int
    reencoded_encoder_runs: int
    flops: float
    reencoded_flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRanking:
    """The ranking of one request, best item first."""

    request_id: str
    items: Sequence[RankedItem]
    model_version: str
    calibrated: bool
    """Whether a score is a probability of a click."""
    status: str
    advice: str
    """What the status means, "" for ``ok``."""
    feature_version: str
    latency_ms: float
    cost: RequestCost | None
    """None if the bundle's cost card is not available."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickEffect:
    """The effect of a click: the user, and the same candidates ranked again."""

    changed_after_ms: float | None
    """From the click's publication to a ranking with new scores; None: no change yet."""
    advice: str
    """What to check if nothing changed, else ""."""
    user: ShownUser
    ranking: ShownRanking


class Playground(Protocol):
    """The playground behind the page; safe for concurrent requests."""

    def offer(self) -> Offer:
        """Return the users to choose from, and what is missing."""
        ...

    def user(self, user_id: str) -> ShownUser:
        """Return a user's behaviours; an unknown user has none."""
        ...

    def rank(
        self, user_id: str, item_ids: Sequence[str], count: int, draw: int
    ) -> ShownRanking:
        """Rank ``item_ids``; if empty, ``count`` items of the ``draw``-th sample."""
        ...

    def recommend(self, user_id: str, count: int) -> ShownRanking:
        """Return the ``count`` items that are recommended, with their sources."""
        ...

    def click(self, request_id: str, item_id: str) -> ClickEffect:
        """Publish the impressions and the click, and wait for the effect."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
