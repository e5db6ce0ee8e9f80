"""Items' attributes and counters in memory, refreshed from the store in the background.

Reading 100 items from Feast for every request would cost milliseconds; the table costs a
binary search. In: a reader and a bundle's vocabulary. Out: arrays for a request's items,
at most two refreshes old, or ten after a minute without requests, as in a bundle that
waits for a rollback. A missing item has the prior's counters until the next refresh.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import Srp4ctrError
from srp4ctr.features.tensors.transforms import ActivityArrays, empty_activity
from srp4ctr.features.tensors.vocabulary import Vocabulary, parse_attributes
from srp4ctr.streams.state.counters import Activity

Int64s = NDArray[np.int64]

# 40 items × 4 partitions are one pipeline of 160 reads, which holds the interpreter for
# about 5 ms: too long while requests wait, so then it reads fewer, with pauses.
CHUNK, CHUNK_BEHIND_REQUESTS = 40, 8
# An item costs about 0.08 ms of CPU, so a turn costs 0.04 s: a twenty-fifth of a core at a
# turn a second. Requested items go first, the others take turns.
MAX_ITEMS_A_TURN = 500
_SHARE_OF_HOT_ITEMS = 0.75
_SHARE_OF_REST = 0.1  # of the interval between two refreshes; the rest of it is reading
IDLE_AFTER_S = 60.0
IDLE_INTERVALS = 10.0  # between two refreshes then
# With Python's default of 5 ms a refresh delayed a request by up to 218 ms, with this one
# by up to 13 ms.
_SWITCH_INTERVAL_S = 0.0005
_ENDS_WITHIN_S = 2.0  # a read that the store does not answer takes longer
# Requested keys outside the vocabulary: ids that clients invent must not fill the memory.
MAX_UNKNOWN_KEYS = 100_000


class ItemReader(Protocol):
    """Reads items; raises ``OutageError`` when the store does not answer."""

    def read_items(self, item_keys: Sequence[int]) -> Sequence[tuple[str, Activity]]:
        """Return each item's attributes as JSON ("": none), and its summed counters."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemRows:
    """Attributes and counters of items; arrays begin with the shape of their keys."""

    attribute_rows: Int64s
    """(…, A)"""
    activity: ActivityArrays
    version: int
    """When the table's refresh began, UTC ms: it holds what was stored then. 0 before the
    first."""

    def take(self, index: Any) -> "ItemRows":
        """Return the items ``index`` (numbers, mask or slices)."""
        return ItemRows(
            attribute_rows=self.attribute_rows[index],
            activity=self.activity.take(index),
            version=self.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """The whole table; the row after the last key is the default of a missing item."""

    keys: Int64s  # (n,) ascending
    rows: ItemRows  # (n + 1, …)
    is_hot: NDArray[np.bool_]  # (n + 1,): looked up since the last refresh


class ItemTable:
    """A table of items that is replaced whole, so that requests take no lock."""

    def __init__(self, reader: ItemReader, vocabulary: Vocabulary) -> None:
        self._reader = reader
        self._vocabulary = vocabulary
        self._rows_of_text: dict[str, Int64s] = {}
        self._missing: set[int] = set()
        self._next = 0
        self._state = _blank(vocabulary.item_keys, vocabulary.num_attribute_slots)
        self._stopped = threading.Event()
        self._refreshing: threading.Thread | None = None

    def lookup(self, item_keys: Int64s) -> ItemRows:
        """Return the rows of ``item_keys`` (any shape); key 0 is padding."""
        state = self._state  # once: a refresh may replace it meanwhile
        index, present = _find(state.keys, item_keys)
        state.is_hot[index] = True
        missing = ~present & (item_keys != 0)
        if missing.any() and len(self._missing) < MAX_UNKNOWN_KEYS:
            self._missing.update(item_keys[missing].tolist())
        return state.rows.take(index)

    def refresh(self, max_items: int | None = None, spread_s: float = 0.0) -> int:
        """Read new items, then up to ``max_items`` (None: all), requested ones first.

        Reads in small chunks, spread over ``spread_s``, while requests are served. Returns
        how many were read. Raises ``OutageError`` when the store does not answer, and
        keeps what was read before.
        """
        old, missing = self._state, self._missing
        self._missing = set()
        state = _grown(old, self._admitted(missing))
        turn = self._turn(old, state, max_items)
        chunk = CHUNK_BEHIND_REQUESTS if spread_s else CHUNK
        began = time.monotonic()
        try:
            for start in range(0, len(turn), chunk):
                due = began + spread_s * start / len(turn)
                if (rest := due - time.monotonic()) > 0 and self._stopped.wait(rest):
                    break
                self._read_into(state, turn[start : start + chunk])
        finally:
            self._state = state
        return len(turn)

    def keep_fresh(self, interval_s: float) -> threading.Thread:
        """Refresh every ``interval_s`` in a daemon thread until ``stop``.

        Makes the process's threads switch more often, so that requests wait less.
        """
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        thread = threading.Thread(
            target=self._run, args=(interval_s,), name="item-table", daemon=True
        )
        thread.start()
        self._refreshing = thread
        return thread

    def stop(self) -> None:
        """End the thread of ``keep_fresh`` and wait for it.

        A process that exits while the thread is in a library could abort.
        """
        self._stopped.set()
        if self._refreshing is not None:
            self._refreshing.join(_ENDS_WITHIN_S)

    def _run(self, interval_s: float) -> None:
        wanted_at = read_at = time.monotonic()
        while not self._stopped.wait(interval_s * _SHARE_OF_REST):
            now = time.monotonic()
            if self._is_wanted():
                wanted_at = now
            rests = now - read_at < IDLE_INTERVALS * interval_s
            if rests and now - wanted_at > IDLE_AFTER_S:
                continue
            read_at = now
            # If the store is down, each request reports it (store_unavailable).
            with contextlib.suppress(Srp4ctrError):
                self.refresh(MAX_ITEMS_A_TURN, interval_s * (1.0 - _SHARE_OF_REST))

    def _is_wanted(self) -> bool:
        """Return whether an item was looked up since the last refresh."""
        return bool(self._missing) or bool(self._state.is_hot.any())

    def _admitted(self, missing: set[int]) -> Int64s:
        """Return the table's keys and those of ``missing`` for which there is room."""
        keys = self._state.keys
        room = MAX_UNKNOWN_KEYS - (len(keys) - len(self._vocabulary.item_keys))
        new = np.array(sorted(missing)[: max(room, 0)], dtype=np.int64)
        return np.union1d(keys, new)

    def _turn(self, old: _State, state: _State, max_items: int | None) -> Int64s:
        """Return the rows to read: new items, requested ones, then some in rotation."""
        total = len(state.keys)
        new = np.flatnonzero(~_find(old.keys, state.keys)[1])
        if max_items is None or max_items >= total:
            return np.arange(total)
        # A copy: numpy counts a mask, then fills that many places, and other threads run
        # in between. One more item that was looked up then was written beyond the end.
        is_hot = old.is_hot[:-1].copy()
        hot, _ = _find(state.keys, old.keys[is_hot])
        hot = np.roll(hot, -self._next)[: int(max_items * _SHARE_OF_HOT_ITEMS)]
        rotation = (self._next + np.arange(max_items - len(hot))) % total
        self._next = int(self._next + len(rotation)) % total
        first = np.concatenate([new, hot, rotation])
        return first[np.sort(np.unique(first, return_index=True)[1])]

    def _read_into(self, state: _State, index: Int64s) -> None:
        """Read the items of rows ``index`` into ``state``."""
        found = self._reader.read_items(state.keys[index].tolist())
        for row, (text, activity) in zip(index.tolist(), found, strict=True):
            state.rows.attribute_rows[row] = self._attribute_rows(text)
            state.rows.activity.put(row, activity)

    def _attribute_rows(self, text: str) -> Int64s:
        """Return the rows of attributes in JSON, parsed once per text."""
        rows = self._rows_of_text.get(text)
        if rows is None:
            if len(self._rows_of_text) > 2 * MAX_UNKNOWN_KEYS:
                self._rows_of_text.clear()  # after years of updates
            rows = self._vocabulary.attribute_rows(parse_attributes(text))
            self._rows_of_text[text] = rows
        return rows


def _find(keys: Int64s, wanted: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
    """Return each wanted key's row (the default if absent), and which are present."""
    if not len(keys):
        return np.zeros(wanted.shape, dtype=np.int64), np.zeros(wanted.shape, dtype=bool)
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    present = keys[index] == wanted
    return np.where(present, index, len(keys)), present


def _blank(keys: Int64s, slots: int, version: int = 0) -> _State:
    rows = ItemRows(
        attribute_rows=np.zeros((len(keys) + 1, slots), dtype=np.int64),
        activity=empty_activity(len(keys) + 1),
        version=version,
    )
    return _State(keys=keys, rows=rows, is_hot=np.zeros(len(keys) + 1, dtype=bool))


def _grown(old: _State, keys: Int64s) -> _State:
    """Return a copy of ``old`` at the next version, with rows for all of ``keys``."""
    slots = old.rows.attribute_rows.shape[-1]
    now_ms = time.time_ns() // 1_000_000
    new = _blank(keys, slots, max(now_ms, old.rows.version + 1))
    index, _ = _find(keys, old.keys)
    new.rows.attribute_rows[index] = old.rows.attribute_rows[:-1]
    new.rows.activity.put(index, old.rows.activity.take(slice(0, -1)))
    return new
