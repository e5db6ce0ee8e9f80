"""What the playground shows, and who answers it: said here, done by who starts the page.

The page's server knows no store, stream or Triton: it is handed a ``Playground`` and turns
what that returns into JSON. Whatever a person can mend is raised as a sentence that says
how: ValueError, RuntimeError or OSError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one may begin with."""

    users: Sequence[str]
    """Who did something of late, the last first."""
    can_rank: bool
    """False where it is known that nothing was ever promoted."""
    advice: str
    """What to do first where something is missing, else ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """An item as a person knows it."""

    item_id: str
    """"" where the store has no profile that tells it: its title is its key then."""
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
    """What the feature store holds of a user now."""

    user_id: str
    behaviors: Sequence[ShownBehavior]
    """Newest first."""
    advice: str
    """Said of a user without a sequence, else ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """One candidate's answer."""

    item: ShownItem
    score: float | None
    notes: str
    """Why its score knows less than it could, else ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCost:
    """What a request cost by its bundle's cost card, and what it would cost unfolded."""

    encoder_runs: int
    unfolded_encoder_runs: int
    flops: float
    unfolded_flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRanking:
    """The answer to one request, items from the top."""

    request_id: str
    items: Sequence[RankedItem]
    model_version: str
    status: str
    advice: str
    """What the status means, "" for ``ok``."""
    feature_version: str
    latency_ms: float
    cost: RequestCost | None
    """None where the bundle's card is not at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickEffect:
    """What a click did: the user, and the same candidates ranked again."""

    changed_after_ms: float | None
    """From the click's publication to a ranking with other scores; None: no change yet."""
    advice: str
    """Where to look if nothing changed, else ""."""
    user: ShownUser
    ranking: ShownRanking


class Playground(Protocol):
    """Answers the playground, one request at a time or many."""

    def offer(self) -> Offer:
        """Return users to choose from, and what is missing."""
        ...

    def user(self, user_id: str) -> ShownUser:
        """Return what is known of a user; one that is not known has no behaviours."""
        ...

    def rank(
        self, user_id: str, item_ids: Sequence[str], count: int, draw: int
    ) -> ShownRanking:
        """Rank ``item_ids``; without any, ``count`` items of the ``draw``-th choice."""
        ...

    def click(self, request_id: str, item_id: str) -> ClickEffect:
        """Publish that the ranking was shown and the item clicked; wait for the effect."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
