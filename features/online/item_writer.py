"""Changed rows of items → the table that serving maps: the one writer's side of it.

An item's counters are the sum of a share for each partition, as ``counters.total`` adds
them up, but for thousands of items at once. The newest version of a row stays, so that
rows may come in any order and any number of times.
"""

import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.online import item_map
from srp4ctr.features.online.item_feed import SHARE, Changes, StoredProfile
from srp4ctr.features.online.item_map import FullError, ItemMemory
from srp4ctr.features.tensors import arrays
from srp4ctr.features.tensors.arrays import COLUMNS
from srp4ctr.features.tensors.transforms import decay

LOG = logging.getLogger(__name__)
Int64s = NDArray[np.int64]
FIRST_ITEMS = 1 << 15  # of the first table; then twice as many
TEXT_BYTES_PER_ITEM = 256
_TRY_AGAIN_S = 60.0  # after there was no memory
_NEVER = np.iinfo(np.int64).max


class Shares:
    """Items' counters by partition, in the writer's own memory."""

    def __init__(self) -> None:
        self._places = np.zeros((0, 1), dtype=np.int32)
        """(items, partitions): where a share is; 0 is that of none."""
        self._shares = np.zeros(1024, dtype=SHARE)
        self._items = np.zeros(1024, dtype=np.int32)
        self._confirmed = np.zeros(1024, dtype=np.int64)
        self._count = 1

    def put(self, items: Int64s, shares: NDArray[Any], now: int, since: int) -> Int64s:
        """Keep the newest of ``shares`` (n,) of ``items`` (n,); return the items changed.

        A row of the store also replaces a newer one that was not confirmed after ``since``:
        the store has lost it.
        """
        partitions = shares["partition"]
        order = np.lexsort((shares["version_us"], partitions, items))
        is_last = np.ones(len(order), dtype=bool)
        same = (np.diff(items[order]) == 0) & (np.diff(partitions[order]) == 0)
        is_last[:-1] = ~same
        order = order[is_last]
        items, shares = items[order], shares[order]
        places = self._places_of(items, shares["partition"])
        known = self._shares["version_us"][places]
        is_lost = self._confirmed[places] < since
        is_new = (shares["version_us"] > known) | (
            is_lost & (shares["version_us"] != known)
        )
        self._confirmed[places] = now
        self._shares[places[is_new]] = shares[is_new]
        return np.unique(items[is_new])

    def drop_before(self, since: int) -> Int64s:
        """Drop the shares that were not confirmed after ``since``; return their items."""
        used = slice(1, self._count)
        is_gone = self._confirmed[used] < since
        is_gone &= self._shares["version_us"][used] > 0
        gone = 1 + np.flatnonzero(is_gone)
        self._shares[gone] = np.zeros((), dtype=SHARE)
        return np.unique(self._items[gone]).astype(np.int64)

    def total(self, items: Int64s) -> Int64s:
        """Return the summed counters of ``items`` (n,) as columns (n, COLUMNS)."""
        self._make_room(items, 0)
        shares = self._shares[self._places[items]]  # (n, partitions)
        counted_at = shares["counted_at_ms"].max(axis=1)
        left = decay(counted_at[:, None] - shares["counted_at_ms"])
        seen = shares["first_seen_ms"]
        first = np.where(seen > 0, seen, _NEVER).min(axis=1)
        columns = np.zeros((len(items), COLUMNS), dtype=np.int64)
        columns[:, arrays.COUNTED_AT_MS] = counted_at
        columns[:, arrays.FIRST_SEEN_MS] = np.where(first < _NEVER, first, 0)
        counts = columns.view(np.float64)
        counts[:, arrays.IMPRESSIONS] = (shares["impressions"] * left).sum(axis=1)
        counts[:, arrays.CLICKS] = (shares["clicks"] * left).sum(axis=1)
        return columns

    def _places_of(self, items: Int64s, partitions: Int64s) -> Int64s:
        """Return where the shares are; new ones get the next places."""
        self._make_room(items, int(partitions.max(initial=0)))
        found = self._places[items, partitions]
        new = np.flatnonzero(found == 0)
        if (end := self._count + len(new)) > len(self._shares):
            self._shares, self._items, self._confirmed = (
                _longer(each, max(end, 2 * len(each)))
                for each in (self._shares, self._items, self._confirmed)
            )
        found[new] = np.arange(self._count, end)
        self._items[found[new]] = items[new]
        self._places[items, partitions] = found
        self._count = end
        return found.astype(np.int64)

    def _make_room(self, items: Int64s, partition: int) -> None:
        had_items, had_partitions = self._places.shape
        last = int(items.max(initial=0))
        if last >= had_items or partition >= had_partitions:
            more = 2 * last + 1 if last >= had_items else had_items
            places = np.zeros((more, max(had_partitions, partition + 1)), dtype=np.int32)
            places[:had_items, :had_partitions] = self._places
            self._places = places


class ItemWriter:
    """Writes the table of items in ``memory``; there is one writer."""

    def __init__(self, memory: ItemMemory, items: int = FIRST_ITEMS) -> None:
        """Begin with an empty table for ``items``; it has no reader until ``publish``."""
        self._memory = memory
        self._map = memory.create(items, items * TEXT_BYTES_PER_ITEM)
        self._is_public = False
        self._full_until_s = 0.0
        self._shares = Shares()
        size = self._map.capacity
        self._keys = np.zeros(size, dtype=np.int64)
        self._texts, self._versions, self._confirmed = np.zeros((3, size), dtype=np.int64)

    @property
    def count(self) -> int:
        """How many items the table has."""
        return self._map.count - 1

    def publish(self) -> None:
        """Let readers see the table."""
        if not self._is_public:
            self._memory.publish(self._map)
            self._is_public = True

    def put(self, changes: Changes, now: int, since: int = 0) -> None:
        """Write rows that came at ``now``, unless newer ones are known.

        ``since`` (a sweep's begin; 0: they are from the stream): rows that were
        not confirmed after it give way even to older ones. Both are of one clock that never
        goes back.
        """
        shares, profiles = changes.shares, changes.profiles
        given = np.array([profile.item_key for profile in profiles], dtype=np.int64)
        rows = self._rows_of(np.concatenate([shares["item_key"], given]))
        of_shares, of_profiles = rows[: len(shares)], rows[len(shares) :]
        is_there = of_shares > 0
        shares = shares[is_there]
        changed = self._shares.put(of_shares[is_there], shares, now, since)
        described = [
            row
            for row, profile in zip(of_profiles.tolist(), profiles, strict=True)
            if row and self._describe(row, profile, now, since)
        ]
        self._write(np.union1d(changed, np.array(described, dtype=np.int64)))

    def drop_before(self, since: int) -> None:
        """Drop rows not confirmed after ``since``: a sweep that began then is over."""
        used = slice(1, self._map.count)
        is_gone = (self._confirmed[used] < since) & (self._texts[used] > 0)
        gone = 1 + np.flatnonzero(is_gone)
        self._texts[gone] = self._versions[gone] = 0
        self._write(np.union1d(gone, self._shares.drop_before(since)))

    def _describe(self, row: int, profile: StoredProfile, now: int, since: int) -> bool:
        """Keep the profile if it is no older; return whether the row has another text."""
        is_lost = self._confirmed[row] < since
        self._confirmed[row] = now
        if profile.version_us < self._versions[row] and not is_lost:
            return False
        self._versions[row] = profile.version_us
        if self._map.text(int(self._texts[row])) == profile.text:
            return False
        try:
            self._texts[row] = self._added(profile.text)
        except OSError as error:
            self._versions[row] = 0  # the next one, or a sweep, may find memory
            LOG.error("no memory for an item's attributes: %s", error)
            return False
        return True

    def _added(self, text: str) -> int:
        try:
            return self._map.add_text(text)
        except FullError:
            self._grow(self._map.capacity, len(text.encode()))
            return self._map.add_text(text)

    def _write(self, rows: Int64s) -> None:
        columns = self._shares.total(rows)
        columns[:, arrays.TEXT] = self._texts[rows]
        self._map.put(rows, columns)

    def _rows_of(self, keys: Int64s) -> Int64s:
        """Return the rows of ``keys``, new items included; 0 where there is no memory."""
        rows = self._map.find(keys)
        new = np.unique(keys[rows == 0])
        if not len(new) or time.monotonic() < self._full_until_s:
            return rows
        try:
            if (wanted := self._map.count + len(new)) > self._map.capacity:
                self._grow(wanted)
            self._insert(new)
        except OSError as error:
            self._full_until_s = time.monotonic() + _TRY_AGAIN_S
            LOG.error("no memory for %s new items: %s", len(new), error)
        return self._map.find(keys)

    def _insert(self, keys: Int64s) -> None:
        try:
            rows = self._map.insert(keys)
        except FullError:  # two full buckets
            self._grow(2 * self._map.capacity)
            rows = self._map.insert(keys)
        self._keys[rows] = keys

    def _grow(self, items: int, text_bytes: int = 0) -> None:
        """Move all items, at their rows, to a table for ``items`` and one more text."""
        old, count = self._map, self._map.count
        had = self._texts[1:count]
        room = 2 * int(item_map.length_of(had).sum()) + text_bytes
        grown = self._memory.create(items, max(items * TEXT_BYTES_PER_ITEM, room))
        grown.insert(self._keys[1:count])
        texts = [grown.add_text(old.text(number)) for number in had.tolist()]
        self._map = grown
        self._keys, self._texts, self._versions, self._confirmed = (
            _longer(each, grown.capacity)
            for each in (self._keys, self._texts, self._versions, self._confirmed)
        )
        self._texts[1:count] = texts
        self._write(np.arange(1, count))
        if self._is_public:
            self._memory.publish(grown)


def _longer(array: NDArray[Any], length: int) -> NDArray[Any]:
    longer = np.zeros(length, dtype=array.dtype)
    longer[: len(array)] = array
    return longer
