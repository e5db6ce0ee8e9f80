"""Held-out features and scores → how far the served ones have drifted from them.

Training writes the distributions of the newest held-out requests as ``reference.json``
into the bundle. Serving counts the same values of some requests in the same bins. Out: the
population stability index of each.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.features import columns

REFERENCE_FILE = "reference.json"
SCORE = "score"
UNSEEN_ITEM = "unseen_item"
"""1 for an item outside the vocabulary, else 0."""
COLD_USER = "cold_user"
"""1 for a request without a history, else 0."""
MAX_BINS = 10
# With fewer values, noise makes an index of (bins - 1) / values: .02 and more.
MIN_VALUES = 500
_CLOCK_FEATURES = ("hour_sin", "hour_cos")  # each hour is far from the day's spread
_LEAST_SHARE = 1e-4  # an empty bin has no finite index
Values = Iterator[tuple[str, NDArray[Any]]]


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of a feature; a value at an edge belongs to the bin above."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    """One more than edges; they add up to 1."""

    def count(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return how many of ``values`` fall in each bin."""
        places = np.searchsorted(self.edges, values, side="right")
        return np.bincount(places, minlength=len(self.shares))


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of each feature, and of the score, on the held-out requests."""

    shown: int
    """Items of a request, at the median. Serving scores more than are shown, and compares
    only this number of the best."""
    bins: dict[str, Bins]
    candidate_columns: tuple[str, ...] = ()
    """The bundle's columns of candidate_features, in order."""


def reference_of(
    tensors: Mapping[str, NDArray[Any]],
    is_known: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    scores: NDArray[Any],
    names: Sequence[str],
) -> Reference:
    """Return the reference of R requests; ``is_known`` and ``shown`` are (R, N).

    ``scores`` are those of the shown items, in order, and ``names`` the columns of
    candidate_features.
    """
    values = dict(values_of(tensors, is_known, shown, names)) | {SCORE: scores}
    bins = {name: _bins(each, _halves(name)) for name, each in values.items()}
    return Reference(
        shown=max(int(np.median(shown.sum(axis=1))), 1),
        bins={name: each for name, each in bins.items() if len(each.shares) > 1},
        candidate_columns=tuple(names),
    )


def values_of(
    tensors: Mapping[str, NDArray[Any]],
    is_known: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    candidate_columns: Sequence[str],
) -> Values:
    """Yield each feature's name and its values, of requests and of shown items.

    ``is_known`` and ``shown`` are (R, N); ``candidate_columns`` are the bundle's.
    """
    has_history = tensors["history_item_rows"].any(axis=1)
    yield COLD_USER, np.where(has_history, 0.0, 1.0)
    yield UNSEEN_ITEM, np.where(is_known[shown], 0.0, 1.0)
    of_request = tensors["request_features"]
    for column, name in enumerate(columns.REQUEST.names):
        if name not in _CLOCK_FEATURES:
            yield name, of_request[:, column]
    of_items = tensors["candidate_features"][shown]
    for column, name in enumerate(candidate_columns):
        yield name, of_items[:, column]


def best(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Return which of the scores (R, N) are the ``count`` best of their row; NaN never."""
    order = np.argsort(-scores, axis=1)[:, :count]  # NaN sorts last
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, order, values=True, axis=1)
    chosen &= ~np.isnan(scores)
    return chosen


def stability_index(bins: Bins, counts: Sequence[float]) -> float:
    """Return the population stability index Σ (q − p) ln (q / p) of counts in ``bins``.

    Below 0.1 there is no drift, above 0.2 there is; NaN of too few values.
    """
    total = sum(counts)
    if total < MIN_VALUES or len(counts) != len(bins.shares):
        return nan
    now = np.maximum(np.array(counts) / total, _LEAST_SHARE)
    then = np.maximum(np.array(bins.shares), _LEAST_SHARE)
    return float(np.sum((now - then) * np.log(now / then)))


def write_reference(folder: Path, reference: Reference) -> None:
    """Write ``reference.json`` into the bundle in ``folder``."""
    write_json(folder / REFERENCE_FILE, reference)


def read_reference(folder: Path) -> Reference | None:
    """Return the reference in ``folder``; None where there is none that can be read."""
    return read_json(folder / REFERENCE_FILE, Reference)


def _halves(name: str) -> tuple[float, ...]:
    """Return the edge of a share: it has two bins although it may be 0 in training."""
    return (0.5,) if name in (COLD_USER, UNSEEN_ITEM) else ()


def _bins(values: NDArray[Any], edges: tuple[float, ...] = ()) -> Bins:
    """Return bins at ``edges``, or else at the deciles; equal values share one."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not edges and len(finite):
        inner = np.quantile(finite, np.arange(1, MAX_BINS) / MAX_BINS, method="lower")
        # A value at an edge belongs to the bin above: the edge is the next greater value.
        above = np.unique(finite)
        places = np.unique(np.searchsorted(above, inner, side="right"))
        edges = tuple(above[places[places < len(above)]].tolist())
    counts = Bins(edges=edges, shares=(0.0,) * (len(edges) + 1)).count(finite)
    shares = counts / max(len(finite), 1)
    return Bins(edges=edges, shares=tuple(np.round(shares, 6).tolist()))
