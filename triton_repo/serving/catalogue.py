"""What of the store's items may be recommended now.

In: a bundle's items and the table of items in shared memory. Out: which known items
are available and have which attributes, what is popular now, and what was added since the
bundle was trained. A thread looks through all items every few seconds, and twice a second
at those that have changed; requests read the last result.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.candidates import (
    LEAST_CLICKS,
    MAX_NEW,
    MAX_POPULAR,
    NEW_MS,
    POPULAR_LIVES,
    POPULAR_SHARES,
    blended,
)
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.tensors.arrays import Arrays
from srp4ctr.features.tensors.item_fields import FIRST_ATTRIBUTE_ROW, places
from srp4ctr.features.tensors.transforms import decay
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.triton_repo.serving.item_vectors import ItemVectors, greatest

LOG = logging.getLogger(__name__)
Int64s = NDArray[np.int64]
Where = tuple[tuple[str, tuple[str, ...]], ...]
"""Attributes and the values of which an item must have one."""
ReadProfiles = Callable[[Sequence[int]], Mapping[int, ItemProfile]]

# Half a percent of a core, a millisecond at a time, so that the slowest percent of requests
# is not those that meet it. A million items take half a second: a hundred with the pauses.
_EVERY_S = 5.0
_BUSY_SHARE = 0.005
# At most one percent more for what changes: a look takes 4 to 8 ms.
_CHANGES_EVERY_S = 0.5
_CHANGES_BUSY_SHARE = 0.01
_MAX_IDS = 20_000  # of items that the bundle does not know: some megabytes
_ITEMS_AT_ONCE = 2_000
_NO_VALUES = ("numeric", "vector")  # kinds of fields whose rows no caller can name
_FILTERS = 32  # of a million items 8 MB each, at most


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemList:
    """Some items in order, the best first."""

    keys: Int64s  # (n,)
    ids: tuple[bytes, ...]
    attribute_rows: Int64s  # (n, A)

    def joined(self, other: "ItemList", rows: Int64s) -> "ItemList":
        """Return these items, then those of ``other`` in ``rows``."""
        attribute_rows = [self.attribute_rows, other.attribute_rows[rows]]
        return ItemList(
            keys=np.concatenate([self.keys, other.keys[rows]]),
            ids=(*self.ids, *(other.ids[row] for row in rows.tolist())),
            attribute_rows=np.concatenate(attribute_rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Offer:
    """What may be recommended, as of one look at the table."""

    attribute_rows: NDArray[np.int32]
    """(V, A) of the known items."""
    unavailable: Int64s
    """Which of them are not."""
    popular: ItemList
    usual: ItemList
    """What training saw most: popular where too little was clicked lately."""
    new: ItemList
    matching: dict[Where, Int64s] = field(default_factory=dict)
    """The rows of known items by filter: requests repeat a few."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Items(Arrays):
    """Some items as the table has them now."""

    keys: Int64s  # (n,)
    attribute_rows: NDArray[np.int32]  # (n, A)
    is_available: NDArray[np.bool_]  # (n,)
    clicks: NDArray[np.float64]
    """(n, 3): decayed, by the half-lives of ``POPULAR_SHARES``."""
    first_seen_ms: Int64s  # (n,)

    def most_clicked(self) -> list[Int64s]:
        """Return the rows with the most clicks at each half-life, the first in front."""
        is_popular = (self.clicks >= LEAST_CLICKS) & self.is_available[:, None]
        scores = np.where(is_popular, self.clicks, 0.0)
        return [_best(each, MAX_POPULAR) for each in scores.T]


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
        self._nameless: set[int] = set()
        """Other such items, which had no profile when the present look began."""
        self._most_trained = _best(items.counts, 2 * MAX_POPULAR)
        self._most_clicked = np.zeros(0, dtype=np.int64)
        """The keys of the items that have the most clicks at any half-life."""
        self._changes = table.changes()
        self._changes.take()  # from now on
        self._changes_due_s = 0.0
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
        self._pause(_EVERY_S)
        while not self._stopped.is_set():
            try:
                self.offer = self._look(self._rest)
            except Exception:  # the last offer is nearly as good
                LOG.exception("the catalogue is not looked through")
            self._pause(_EVERY_S)

    def _rest(self, since_s: float) -> float:
        """Pause for what the thread has done ``since_s``; return its CPU time."""
        self._pause((time.thread_time() - since_s) / _BUSY_SHARE)
        return time.thread_time()

    def _pause(self, seconds: float) -> None:
        """Look at nothing but what changes, for ``seconds``."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0.0:
            wait_s = min(left_s, max(self._changes_due_s - time.monotonic(), 0.0))
            if self._stopped.wait(wait_s):
                return
            if time.monotonic() >= self._changes_due_s:
                began_s = time.thread_time()
                self._look_at_changes()
                rest_s = (time.thread_time() - began_s) / _CHANGES_BUSY_SHARE
                self._changes_due_s = time.monotonic() + max(rest_s, _CHANGES_EVERY_S)

    def _look_at_changes(self) -> None:
        """Offer what has become popular: unchanged items do not overtake each other."""
        try:
            if len(changed := self._changes.take()):
                keys = np.concatenate([self._most_clicked, changed])
                popular = self._popular(keys, self.offer.usual)
                self.offer = replace(self.offer, popular=popular)
        except Exception:  # the last offer is nearly as good
            LOG.exception("what has become popular is not looked up")

    def _look(self, rest: Callable[[float], float]) -> Offer:
        known = len(self.items.keys)
        self._nameless.clear()
        stored = self._table.keys()
        keys = np.concatenate([self.items.keys, stored[~np.isin(stored, self.items.keys)]])
        found = self._read(keys, rest)
        usual = self._most_trained[found.is_available[self._most_trained]]
        usual_items = self._listed(found.take(usual), MAX_POPULAR)
        # Others may have become popular while the first of them were read.
        clicked = found.keys[np.concatenate(found.most_clicked())]
        clicked = np.concatenate([self._most_clicked, clicked])
        popular = self._popular(clicked, usual_items)
        # Later rows came later; an item that no user was shown yet is the newest.
        now_ms = time.time_ns() // 1_000_000
        added_ms = np.where(found.first_seen_ms > 0, found.first_seen_ms, now_ms)
        is_new = found.is_available & (added_ms > now_ms - NEW_MS)
        new = known + np.flatnonzero(is_new[known:])[::-1]
        new = new[np.argsort(-added_ms[new], kind="stable")][: 2 * MAX_NEW]
        return Offer(
            attribute_rows=found.attribute_rows[:known],
            unavailable=np.flatnonzero(~found.is_available[:known]),
            popular=popular,
            usual=usual_items,
            new=self._listed(found.take(new), MAX_NEW),
        )

    def _popular(self, keys: Int64s, usual: ItemList) -> ItemList:
        """Return the most popular of ``keys``, which may repeat, then ``usual`` ones.

        Notes the first of each half-life, which the next look compares with others.
        """
        found = self._read(np.unique(keys), rest=lambda since_s: since_s)
        firsts = found.most_clicked()
        joined = np.concatenate(firsts)
        self._most_clicked = found.keys[np.unique(joined)]
        by_key = [found.keys[first] for first in firsts]
        places = blended(by_key, list(POPULAR_SHARES.values()), MAX_POPULAR)
        clicked = self._listed(found.take(joined[places]), MAX_POPULAR)
        others = np.flatnonzero(~np.isin(usual.keys, clicked.keys))
        return clicked.joined(usual, others[: MAX_POPULAR - len(clicked.ids)])

    def _read(self, keys: Int64s, rest: Callable[[float], float]) -> "_Items":
        """Return the items of ``keys`` as the table has them now."""
        since_s = time.thread_time()
        found = _Items(
            keys=keys,
            attribute_rows=np.zeros(
                (len(keys), self._vocabulary.num_attribute_slots), dtype=np.int32
            ),
            is_available=np.ones(len(keys), dtype=np.bool_),
            clicks=np.zeros((len(keys), len(POPULAR_LIVES))),
            first_seen_ms=np.zeros(len(keys), dtype=np.int64),
        )
        for start in range(0, len(keys), _ITEMS_AT_ONCE):
            now_ms = time.time_ns() // 1_000_000
            part = slice(start, start + _ITEMS_AT_ONCE)
            rows = self._table.lookup(keys[part])
            ages_ms = np.maximum(now_ms - rows.activity.counted_at_ms, 0)
            found.attribute_rows[part] = rows.attribute_rows
            found.is_available[part] = rows.is_available
            clicks = rows.activity.clicks * decay(ages_ms)
            found.clicks[part] = clicks[:, POPULAR_LIVES]
            found.first_seen_ms[part] = rows.activity.first_seen_ms
            since_s = rest(since_s)
        return found

    def _listed(self, found: "_Items", most: int) -> ItemList:
        """Return the first ``most`` of ``found`` whose ids are known."""
        rows = np.searchsorted(self.items.keys, found.keys)
        rows = np.minimum(rows, max(len(self.items.keys) - 1, 0))
        is_known = self.items.keys.take(rows) == found.keys
        of_bundle = iter(self.items.ids_of(rows[is_known]))
        self._name(found.keys[~is_known].tolist())
        ids = [
            next(of_bundle) if known else self._ids.get(key, b"")
            for key, known in zip(found.keys.tolist(), is_known.tolist(), strict=True)
        ]
        index = np.flatnonzero([bool(each) for each in ids])[:most]
        return ItemList(
            keys=found.keys[index],
            ids=tuple(ids[place] for place in index.tolist()),
            attribute_rows=found.attribute_rows[index].astype(np.int64),
        )

    def _name(self, unknown: list[int]) -> None:
        """Read the ids of items that the bundle does not know; some have no profile."""
        seen = self._ids.keys() | self._nameless
        if missing := [key for key in unknown if key not in seen]:
            try:
                profiles = self._read_profiles(missing)
            except (MistakeError, OutageError) as error:
                LOG.warning("the ids of %s new items are not read: %s", len(missing), error)
                return
            if len(self._ids) > _MAX_IDS:
                self._ids.clear()
            self._ids |= {key: item.item_id.encode() for key, item in profiles.items()}
            self._nameless |= set(missing) - profiles.keys()


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
    """Return the rows of the ``most`` largest positive scores, in order."""
    rows = greatest(scores, most)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return rows[scores[rows] > 0.0]
