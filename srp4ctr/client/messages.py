"""Which items a user may be shown, and the scores that ``rank_clicks`` returns."""

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from types import NoneType
from typing import Literal

from srp4ctr.errors import MistakeError
from srp4ctr.features.tensors.schema import UTC_OFFSET_FIELD
from srp4ctr.streams.events.schema import Impression

_TEXTS = {
    "user_id": "a text",
    "context": "a flat JSON object as a text",
    "request_id": "a text",
}
_OPTIONAL = ("context", "request_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """Which items one user may be shown."""

    user_id: str
    item_ids: Sequence[str]
    request_time_ms: int | None = None
    """None: the server's clock."""
    context: str | None = None
    """A flat JSON object as text."""
    request_id: str | None = None
    """The same as in the impressions, for ``triton.served_log``."""
    utc_offset_minutes: int | None = None
    """How far the user's clock is ahead of UTC; None: the bundle's default."""
    numbers: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Numbers of the items by name, one of each item: ``{"price": [80, 95]}``. None or
    NaN: missing. A bundle reads those that it was trained with."""

    def __post_init__(self) -> None:
        _check_texts(self)
        if isinstance(self.item_ids, str):
            raise MistakeError(f"item_ids is {self.item_ids!r:.80}; a list of texts")
        try:
            "".join(self.item_ids)  # the fastest check: half a microsecond for a hundred
        except TypeError as error:
            raise MistakeError(f"item_ids is no list of texts: {error}") from error
        for name, values in self.numbers.items():
            _check_numbers(name, values, len(self.item_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendRequest:
    """What one user may be recommended."""

    user_id: str
    count: int = 20
    where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """An item has this value of each attribute, or one of these."""
    exclude: Literal["clicked", "shown", "nothing"] = "clicked"
    """What is left out: ``clicked`` is all of the user's history, ``shown`` also what the
    user was shown last."""
    request_time_ms: int | None = None
    """None: the server's clock."""
    context: str | None = None
    """A flat JSON object as text."""
    request_id: str | None = None
    """The same as in the impressions, for ``triton.served_log``."""
    utc_offset_minutes: int | None = None
    """How far the user's clock is ahead of UTC; None: the bundle's default."""

    def __post_init__(self) -> None:
        _check_texts(self)


def _check_texts(request: RankRequest | RecommendRequest) -> None:
    """Raise ``MistakeError`` for what is no text: Triton's client would send its name."""
    for name, form in _TEXTS.items():
        value = getattr(request, name)
        if not isinstance(value, str) and (value is not None or name not in _OPTIONAL):
            raise MistakeError(f"{name} is {value!r:.80}; {form}")


def _check_numbers(name: str, values: Sequence[float | None], count: int) -> None:
    if len(values) != count:
        raise MistakeError(f"numbers {name!r:.80} has {len(values)} of {count} items")
    kinds = set(map(type, values))
    if not all(issubclass(kind, Real) or kind is NoneType for kind in kinds):
        raise MistakeError(f"numbers {name!r:.80} are {values!r:.80}: numbers or None")
    if math.inf in values or -math.inf in values:
        raise MistakeError(f"numbers {name!r:.80} has an infinite one; None: missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to one request; the items keep the caller's order.

    Those of a recommendation are in the order in which to show them.
    """

    user_id: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    """Calibrated click probability of each item; a mere score if not ``calibrated``."""
    item_statuses: tuple[int, ...]
    """Bits of ``features.tensors.schema.ItemStatus``."""
    propensities: tuple[float, ...]
    positions: tuple[int, ...]
    """Where to show each item, 0 at the top."""
    model_version: str
    """The bundle that answered."""
    status: str
    """``ok``, ``cold_user``, ``empty_sequence``, ``stale_sequence``, …"""
    feature_version: str
    calibrated: bool = True
    """False: the bundle was trained on sampled negatives. Its scores order items, and are
    no probabilities of a click."""
    utc_offset_minutes: int | None = None
    """The request's: a part of the impressions' context."""
    sources: tuple[str, ...] = ()
    """Of a recommendation, where each item comes from: ``model``, ``popular``, ``new``."""
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Of each item, NaN where missing: the numbers that the request sent, and ``NAME_rank``
    and ``NAME_difference``, which the model read of those that it was trained with."""
    experiment: str | None = None
    """The canary's, ``v8:v7:0.05``; None while there is none."""
    arm: str | None = None
    """The version that the user was assigned to in it, whichever answered."""

    def numbers_of(self, item_id: str) -> dict[str, float]:
        """Return the numbers of ``item_id`` as its impression carries them."""
        place = self.item_ids.index(item_id)
        numbers = {name: values[place] for name, values in self.numbers.items()}
        return {name: each for name, each in numbers.items() if math.isfinite(each)}

    def to_show(self) -> tuple[str, ...]:
        """Return the items from the top: by ranking score, unless the server explores.

        Equal ones keep the caller's order; padding, whose score is NaN, is left out.
        """
        scored = [i for i, score in enumerate(self.scores) if not math.isnan(score)]
        return tuple(
            self.item_ids[i] for i in sorted(scored, key=self.positions.__getitem__)
        )

    def impressions(
        self,
        request_id: str,
        shown_at_ms: int,
        shown: Sequence[str] | None = None,
        context: Mapping[str, str] | None = None,
    ) -> tuple[Impression, ...]:
        """Return the impressions to publish, one for each item that the user saw.

        ``shown`` are the items from the top, by default those of ``to_show``; all must be
        in ``item_ids``. From the first that differs there is no propensity, because another
        policy chose it.
        """
        places = {item_id: i for i, item_id in enumerate(self.item_ids)}
        ranked = self.to_show()
        items = ranked if shown is None else tuple(shown)
        if self.utc_offset_minutes is not None:
            offset = {UTC_OFFSET_FIELD: str(self.utc_offset_minutes)}
            context = {**(context or {}), **offset}
        as_ranked = sum(itertools.takewhile(bool, map(operator.eq, ranked, items)))
        return tuple(
            Impression(
                # For tracing only; an id has at most 256 letters.
                event_id=f"i-{request_id[:240]}-{position}",
                request_id=request_id,
                user_id=self.user_id,
                item_id=self.item_ids[at],
                position=position,
                occurred_at=shown_at_ms,
                score=self.scores[at],
                propensity=self.propensities[at] if position < as_ranked else None,
                model_version=self.model_version,
                experiment=self.experiment,
                arm=self.arm,
                context=dict(context) if context else None,
                numbers=self.numbers_of(self.item_ids[at]) or None,
            )
            for position, at in enumerate(places[item_id] for item_id in items)
        )
