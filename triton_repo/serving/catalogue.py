"""A bundle's items, and what of the store's items may be recommended now.

In: ``items.safetensors`` and the table of items in shared memory. Out: which known items
are available and have which attributes, what is popular now, and what was added since the
bundle was trained. A thread looks again every few seconds; requests read the last result.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle_items import ids_of, mapped
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.tensors.item_fields import FIRST_ATTRIBUTE_ROW, places
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.state.counters import HALF_LIVES_H
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.triton_repo.serving.nearest import Nearest, greatest

LOG = logging.getLogger(__name__)
Int64s = NDArray[np.int64]
Where = tuple[tuple[str, tuple[str, ...]], ...]
"""Attributes and the values of which an item must have one."""
ReadProfiles = Callable[[Sequence[int]], Mapping[int, ItemProfile]]

MAX_POPULAR, MAX_NEW = 1000, 200
NEW_MS = 7 * 86_400_000  # since an item was first seen
_HALF_LIFE = HALF_LIVES_H.index(24.0)  # of the clicks that make an item popular
# Half a percent of a core, a millisecond at a time, so that the slowest percent of requests
# is not those that meet it. A million items take half a second: a hundred with the pauses.
_EVERY_S, _BUSY_SHARE = 5.0, 0.005
_ITEMS_AT_ONCE = 2_000
_NO_VALUES = ("numeric", "vector")  # kinds of fields whose rows no caller can name
_FILTERS = 32  # of a million items 8 MB each, at most


class ItemVectors:
    """The known items of a bundle: their output vectors, ids and training's counts."""

    def __init__(self, folder: Path, keys: Int64s) -> None:
        """Read them; raises ``ArtifactError`` for files that are not of ``keys``."""
        path = folder / bundle.ITEMS_FILE
        try:
            found = mapped(path)
            vectors: NDArray[np.float32] = found["vectors"]  # (V, D + 1)
            self.counts: NDArray[Any] = found["counts"]  # (V,)
            ends, _ = found["id_ends"], found["id_letters"]
        except (ValueError, OSError, KeyError) as error:
            raise ArtifactError(f"{path} holds no items: {error!r}") from error
        if not len(vectors) == len(self.counts) == len(ends) == len(keys):
            raise ArtifactError(f"{path} has other items than the vocabulary")
        self.keys, self._found = keys, found
        self.nearest = Nearest(folder / bundle.PRODUCTS_FILE, vectors)

    def ids_of(self, rows: Int64s) -> list[bytes]:
        """Return the ids of the items in ``rows``."""
        return ids_of(self._found, rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemList:
    """Some items in order, the best first."""

    keys: Int64s  # (n,)
    ids: tuple[bytes, ...]
    attribute_rows: Int64s  # (n, A)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Offer:
    """What may be recommended, as of one look at the table."""

    attribute_rows: NDArray[np.int32]
    """(V, A) of the known items."""
    unavailable: Int64s
    """Which of them are not."""
    popular: ItemList
    new: ItemList
    matching: dict[Where, Int64s] = field(default_factory=dict)
    """The rows of known items by filter: requests repeat a few."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Items:
    """The bundle's V items, then the store's others, as the table has them now."""

    keys: Int64s  # (n,)
    attribute_rows: NDArray[np.int32]  # (n, A)
    is_available: NDArray[np.bool_]  # (n,)
    clicks: NDArray[np.float64]  # (n,), decayed
    first_seen_ms: Int64s  # (n,)


class Catalogue:
    """The items of one bundle, and the newest ``Offer``."""

    def __init__(
        self,
        items: ItemVectors,
        vocabulary: Vocabulary,
        table: ItemTable,
        read_profiles: ReadProfiles,
    ) -> None:
        self.items, self._vocabulary, self._table = items, vocabulary, table
        self._read_profiles = read_profiles
        self._ids: dict[int, bytes] = {}
        """Of items that the bundle does not know."""
        self.offer = self._look(rest=lambda since_s: since_s)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)

    def start(self) -> None:
        """Look again every few seconds, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def wanted(self, where: Where) -> list[tuple[slice, Int64s]]:
        """Return, for each attribute, its slots and the rows of the wanted values.

        Raises ``MistakeError`` for what the bundle does not know.
        """
        known = {place.field.name: place for place in places(self._vocabulary.field_shapes)}
        found = []
        for name, values in where:
            if (place := known.get(name)) is None or place.field.kind in _NO_VALUES:
                names = [n for n, p in known.items() if p.field.kind not in _NO_VALUES]
                raise MistakeError(
                    f"items cannot be filtered by {name!r}; by: {', '.join(names) or '-'}"
                )
            if not values:
                raise MistakeError(f"filters: {name!r} has no value in where")
            rows = [self._vocabulary.attribute_rows({name: value}) for value in values]
            for value, each in zip(values, rows, strict=True):
                if not each.any():
                    raise MistakeError(f"too few items have {name} = {value!r:.80}")
            found.append((place.slots, np.concatenate(rows)))
        return found

    def rows(self, offer: Offer, where: Where) -> Int64s | None:
        """Return the rows of the known items that have the attributes; None: of all."""
        if not where:
            return None
        if (rows := offer.matching.get(where)) is None:
            if len(offer.matching) >= _FILTERS:
                offer.matching.clear()
            rows = np.flatnonzero(have(offer.attribute_rows, self.wanted(where)))
            offer.matching[where] = rows
        return rows

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            try:
                self.offer = self._look(self._rest)
            except Exception:  # the last offer is nearly as good
                LOG.exception("the catalogue is not looked through")

    def _rest(self, since_s: float) -> float:
        """Pause for what the thread has done ``since_s``; return its CPU time."""
        self._stopped.wait((time.thread_time() - since_s) / _BUSY_SHARE)
        return time.thread_time()

    def _look(self, rest: Callable[[float], float]) -> Offer:
        known = len(self.items.keys)
        found = self._read(rest)
        # Without clicks of the last days: what was popular in training.
        trained = self.items.counts / max(1.0, float(self.items.counts.max(initial=0)))
        scores = found.clicks
        scores[:known] += 1e-3 * trained
        popular = _best(np.where(found.is_available, scores, 0.0), MAX_POPULAR)
        # Later rows came later; what nobody was shown yet is the newest.
        now_ms = time.time_ns() // 1_000_000
        added_ms = np.where(found.first_seen_ms > 0, found.first_seen_ms, now_ms)
        is_new = found.is_available & (added_ms > now_ms - NEW_MS)
        new = known + np.flatnonzero(is_new[known:])[::-1]
        new = new[np.argsort(-added_ms[new], kind="stable")][: 2 * MAX_NEW]
        self._name(found.keys[np.concatenate([popular[popular >= known], new])].tolist())
        return Offer(
            attribute_rows=found.attribute_rows[:known],
            unavailable=np.flatnonzero(~found.is_available[:known]),
            popular=self._listed(found, popular, MAX_POPULAR),
            new=self._listed(found, new, MAX_NEW),
        )

    def _read(self, rest: Callable[[float], float]) -> "_Items":
        """Return the bundle's items, then those that the store has besides."""
        since_s = time.thread_time()
        known, stored = self.items.keys, self._table.keys()
        keys = np.concatenate([known, stored[~np.isin(stored, known)]])
        slots = self._vocabulary.num_attribute_slots
        found = _Items(
            keys=keys,
            attribute_rows=np.zeros((len(keys), slots), dtype=np.int32),
            is_available=np.ones(len(keys), dtype=np.bool_),
            clicks=np.zeros(len(keys)),
            first_seen_ms=np.zeros(len(keys), dtype=np.int64),
        )
        now_ms = time.time_ns() // 1_000_000
        for start in range(0, len(keys), _ITEMS_AT_ONCE):
            part = slice(start, start + _ITEMS_AT_ONCE)
            rows = self._table.lookup(keys[part])
            hours = np.maximum(now_ms - rows.activity.counted_at_ms, 0) / 3_600_000.0
            decay = np.exp2(-hours / HALF_LIVES_H[_HALF_LIFE])
            found.attribute_rows[part] = rows.attribute_rows
            found.is_available[part] = rows.is_available
            found.clicks[part] = rows.activity.clicks[:, _HALF_LIFE] * decay
            found.first_seen_ms[part] = rows.activity.first_seen_ms
            since_s = rest(since_s)
        return found

    def _listed(self, found: "_Items", rows: Int64s, most: int) -> ItemList:
        known = rows[rows < len(self.items.keys)]
        ids = dict(zip(known.tolist(), self.items.ids_of(known), strict=True))
        named = [
            (row, ids.get(row) or self._ids.get(key, b""))
            for row, key in zip(rows.tolist(), found.keys[rows].tolist(), strict=True)
        ]
        kept = [(row, item_id) for row, item_id in named if item_id][:most]
        index = np.array([row for row, _ in kept], dtype=np.int64)
        return ItemList(
            keys=found.keys[index],
            ids=tuple(item_id for _, item_id in kept),
            attribute_rows=found.attribute_rows[index].astype(np.int64),
        )

    def _name(self, unknown: list[int]) -> None:
        """Read the ids of items that the bundle does not know; some have no profile."""
        if missing := [key for key in unknown if key not in self._ids]:
            try:
                found = self._read_profiles(missing)
            except (MistakeError, OutageError) as error:
                LOG.warning("the ids of %s new items are not read: %s", len(missing), error)
                return
            self._ids = {key: self._ids[key] for key in unknown if key in self._ids} | {
                key: profile.item_id.encode() for key, profile in found.items()
            }


def have(
    attribute_rows: NDArray[Any], wanted: Sequence[tuple[slice, Int64s]]
) -> NDArray[np.bool_]:
    """Return which items (n,) have one of the ``wanted`` rows of each attribute."""
    found = np.ones(len(attribute_rows), dtype=np.bool_)
    for slots, rows in wanted:
        chosen = rows[rows >= FIRST_ATTRIBUTE_ROW].astype(attribute_rows.dtype)
        # Slot by slot: to reduce a short second axis takes three times as long.
        of_slots = [np.isin(slot, chosen) for slot in attribute_rows[:, slots].T]
        found &= np.logical_or.reduce(of_slots)
    return found


def _best(scores: NDArray[Any], most: int) -> Int64s:
    """Return the rows of the ``most`` greatest positive scores, in order."""
    rows = greatest(scores, most)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return rows[scores[rows] > 0.0]
