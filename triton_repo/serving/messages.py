"""What a caller asks of ``rank_clicks`` and what it is told, and the tensors of both."""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.streams.events.schema import Impression

Tensors = Mapping[str, NDArray[Any]]
_BY_ITEM = ("click_probability", "item_status", "propensity", "position")


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
    """That of the impressions, for ``triton.served_log``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to one request; the items keep the caller's order."""

    user_id: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    """Calibrated click probability of each item."""
    item_statuses: tuple[int, ...]
    """Bits of ``features.tensors.schema.ItemStatus``."""
    propensities: tuple[float, ...]
    positions: tuple[int, ...]
    """Where to show each item, 0 at the top."""
    model_version: str
    status: str
    """``ok``, ``cold_user``, ``empty_sequence``, ``stale_sequence``, …"""
    feature_version: str

    def to_show(self) -> tuple[str, ...]:
        """Return the items from the top: by descending score, unless the server explores.

        Equal scores keep the caller's order; padding, whose score is NaN, is left out.
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
        """Return the events of what the user saw, to be published: labels need them.

        ``shown`` are the items from the top, if not those ``to_show``; all must have been
        asked for. From where they differ there is no propensity: it was not our policy.
        """
        place = {item_id: i for i, item_id in enumerate(self.item_ids)}
        ours = self.to_show()
        items = ours if shown is None else tuple(shown)
        as_ours = sum(itertools.takewhile(bool, map(operator.eq, ours, items)))
        return tuple(
            Impression(
                event_id=f"i-{request_id}-{position}",
                request_id=request_id,
                user_id=self.user_id,
                item_id=item_id,
                position=position,
                occurred_at=shown_at_ms,
                score=self.scores[place[item_id]],
                propensity=(
                    self.propensities[place[item_id]] if position < as_ours else None
                ),
                model_version=self.model_version,
                context=dict(context) if context else None,
            )
            for position, item_id in enumerate(items)
        )


def tensors_of(requests: Sequence[RankRequest]) -> dict[str, NDArray[Any]]:
    """Return the call's tensors; the shorter requests are padded with empty ids."""
    longest = max((len(each.item_ids) for each in requests), default=0)
    items = [[*each.item_ids, *[""] * (longest - len(each.item_ids))] for each in requests]
    tensors = {
        "user_id": np.array([[each.user_id] for each in requests], dtype=object),
        "item_ids": np.array(items, dtype=object).reshape(len(requests), longest),
    }
    if any(each.request_time_ms is not None for each in requests):
        times = [[each.request_time_ms or 0] for each in requests]  # 0: the server's clock
        tensors["request_time_ms"] = np.array(times, dtype=np.int64)
    if any(each.context is not None for each in requests):
        texts = [[each.context or ""] for each in requests]
        tensors["context"] = np.array(texts, dtype=object)
    if any(each.request_id for each in requests):
        names = [[each.request_id or ""] for each in requests]
        tensors["request_id"] = np.array(names, dtype=object)
    return tensors


def rankings_of(
    requests: Sequence[RankRequest], read: Callable[[str], Any]
) -> tuple[Ranking, ...]:
    """Return the answer to each of ``requests``; ``read`` gives an output, None if none."""
    by_item = {name: read(name) for name in _BY_ITEM}
    if by_item["position"] is None:  # a server whose steps are apart does not explore
        order = np.argsort(-by_item["click_probability"], kind="stable")
        by_item["position"] = np.argsort(order, kind="stable")
    notes = {
        name: [value.decode() for (value,) in read(name).tolist()]
        for name in ("model_version", "status", "feature_version")
    }

    def ranking(row: int, asked: RankRequest) -> Ranking:
        scores, statuses, propensities, positions = (
            tuple(by_item[name][row, : len(asked.item_ids)].tolist()) for name in _BY_ITEM
        )
        return Ranking(
            user_id=asked.user_id,
            item_ids=tuple(asked.item_ids),
            scores=scores,
            item_statuses=statuses,
            propensities=propensities,
            positions=positions,
            **{name: each[row] for name, each in notes.items()},
        )

    return tuple(ranking(row, asked) for row, asked in enumerate(requests))
