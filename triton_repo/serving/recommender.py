"""Calls of ``recommend_items`` → the candidates to rank, and the best of the ranked.

Between the two the ranker does what it does for any request: one bundle retrieves and
ranks, and the user is read once for both.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import MistakeError
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.triton_repo.serving.onnx_scorer import Tensors
from srp4ctr.triton_repo.serving.retriever import Candidates, Filters, Retriever

DEFAULT_COUNT = 20
_HIDDEN = ItemStatus.UNAVAILABLE | ItemStatus.PADDING
_SCORES = schema.SCORE_TENSORS + schema.RANKING_TENSORS
_BY_ITEM = {spec.name for spec in _SCORES + schema.POLICY_TENSORS + schema.ITEM_NOTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommender:
    """Reads calls for the retriever of one bundle."""

    retriever: Retriever
    max_count: int
    """How many candidates are ranked: no call gets more."""

    def __call__(self, given: Tensors) -> "Recommendations":
        """Return what to rank for B users; raises ``MistakeError`` for wrong inputs."""
        users = given["user_id"][:, 0].tolist()
        counts = _column(given, "count", DEFAULT_COUNT, len(users))
        if not all(1 <= count <= self.max_count for count in counts):
            raise MistakeError(f"count is {counts}; 1 to {self.max_count} items")
        filters = [Filters.parse(t) for t in _column(given, "filters", "", len(users))]
        times = _column(given, "request_time_ms", 0, len(users))
        return Recommendations(
            candidates=self.retriever.find(users, times, filters), counts=counts
        )

    def close(self) -> None:
        """Stop the background thread."""
        self.retriever.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendations:
    """The candidates of B users, and how many each wants."""

    candidates: Candidates
    counts: list[int]

    @property
    def item_ids(self) -> NDArray[np.object_]:
        """The items to rank (B, N)."""
        return self.candidates.item_ids

    def best(self, made: Tensors) -> Tensors:
        """Return ``made`` with only the best of the ranked items, from the top.

        An item that has become unavailable since the candidates were found is left out.
        """
        status, positions = made["item_status"], made["position"]
        is_hidden = (status & _HIDDEN) != 0
        places = np.argsort(np.where(is_hidden, positions.shape[1], positions), axis=1)
        places = places[:, : max(self.counts)]
        of_items = {name: made[name] for name in _BY_ITEM & made.keys()} | {
            "recommended_item_ids": self.candidates.item_ids,
            "candidate_source": self.candidates.sources,
        }
        at = np.arange(len(places))[:, None], places
        chosen: dict[str, NDArray[Any]] = {n: each[at] for n, each in of_items.items()}
        over = np.arange(places.shape[1]) >= np.array(self.counts)[:, None]
        over |= is_hidden[at]
        blank = {"click_probability": np.nan, "ranking_score": np.nan}
        blank |= {"item_status": ItemStatus.PADDING}
        for name, padding in {**blank, "recommended_item_ids": b""}.items():
            if name in chosen:
                chosen[name][over] = padding
        return {**made, **chosen}


def _column(given: Tensors, name: str, default: Any, count: int) -> list[Any]:
    return given[name][:, 0].tolist() if name in given else [default] * count
