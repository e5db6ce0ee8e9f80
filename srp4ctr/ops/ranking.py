"""A user and items → Triton's ranking or recommendation, and what explains it.

What ``srp4ctr model rank`` and ``srp4ctr model recommend`` do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from srp4ctr.errors import OutageError
from srp4ctr.ops.feature_store import stored_id, titles
from srp4ctr.settings import Settings
from srp4ctr.streams.events.pseudonymization import read_pseudonyms
from srp4ctr.streams.events.schema import item_key, now_ms

if TYPE_CHECKING:  # tritonclient: not every role has it
    from srp4ctr.client.messages import Ranking
    from srp4ctr.client.rank_client import RankClient

_DAY_MS = 86_400_000
_LIVE_DAYS = 7.0  # the longest half-life of a counter: what is older hardly counts


def rank(
    settings: Settings,
    user: str,
    items: Sequence[str],
    at_ms: int | None = None,
    numbers: Mapping[str, Sequence[float | None]] | None = None,
) -> "Ranking":
    """Return Triton's ranking of ``items`` as of ``at_ms``; None is now.

    ``numbers`` are those of ``RankRequest``. A pseudonym replaces the user if configured.
    """
    with _client(settings) as client:
        return client.rank(
            user, items, request_time_ms=at_ms, numbers=numbers, deadline_s=5.0
        )


def recommend(settings: Settings, user: str, count: int, **options: Any) -> "Ranking":
    """Return Triton's recommendation; ``options`` are fields of ``RecommendRequest``."""
    with _client(settings) as client:
        return client.recommend(user, count, deadline_s=5.0, **options)


def _client(settings: Settings) -> "RankClient":
    from srp4ctr.client.rank_client import RankClient

    triton = settings.triton
    return RankClient(
        triton.grpc,
        tls=triton.tls,
        pseudonyms=read_pseudonyms(settings.streams.pseudonym_key_file),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingContext:
    """What a person needs to read a ranking."""

    titles: Mapping[int, str]
    """By item key; an item's id where it has no title, or the store does not answer."""
    notes: tuple[str, ...] = ()
    """Sentences about the store: that it does not answer, or that its events are old."""


def context_of(
    settings: Settings, ranking: "Ranking", at_ms: int | None = None
) -> RankingContext:
    """Return the titles of the items in a ranking as of ``at_ms``, and notes on it.

    A store that does not answer is a note: Triton ranks without it, too.
    """
    ids = {item_key(item_id): item_id for item_id in ranking.item_ids}
    try:
        names = titles(settings.features, (), ranking.item_ids)
        note = "" if at_ms is not None else _age_note(settings, ranking)
    except OutageError as error:
        note = f"items have no titles here, because the store does not answer: {error}"
        return RankingContext(titles=ids, notes=(note,))
    return RankingContext(titles=names, notes=(note,) if note else ())


def _age_note(settings: Settings, ranking: "Ranking") -> str:
    """Return how to pass the time, where all that the ranking reads is long past."""
    from srp4ctr.features.online.store import OnlineViews

    views, features = OnlineViews(settings.features), settings.features
    user_id = stored_id(settings, ranking.user_id, is_pseudonym=False)
    user = views.read_users([user_id]).get(user_id)
    keys = [item_key(item_id) for item_id in ranking.item_ids]
    shares = views.read_shares(
        (key, partition) for key in keys for partition in range(features.partitions)
    )
    user_ms = user.counted_at_ms if user else 0
    newest_ms = max([user_ms, *(share.counted_at_ms for share in shares.values())])
    age_days = (now_ms() - newest_ms) / _DAY_MS
    if not newest_ms or age_days <= _LIVE_DAYS:
        return ""
    whose = f"user {ranking.user_id}" if newest_ms == user_ms else "these items"
    newest = datetime.fromtimestamp(newest_ms / 1000, UTC)
    return (
        f"the newest event of {whose} is of {newest:%Y-%m-%d %H:%M} UTC, {age_days:,.0f} "
        "days before this request, which is as of now. A log of the past is ranked as of "
        f"its own time: --at {newest:%Y-%m-%dT%H:%M}, in a call request_time_ms"
    )
