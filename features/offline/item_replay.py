"""The event log → the counters of all items at one instant after another.

``counters_as_of`` computes the counters of some items at some instants. To rank the whole
catalogue as of a click takes those of every item at that instant: they are computed once,
as of a start, and then follow the events in the order in which they became visible.

Shapes: I items with a counted event, K events from the start on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from ibis import _
from numpy.typing import NDArray

from srp4ctr.features.offline.counters_as_of import activity_of, activity_table
from srp4ctr.features.offline.event_tables import EventLog, Table
from srp4ctr.features.offline.visible_events import counted_events
from srp4ctr.features.tensors.arrays import ActivityArrays
from srp4ctr.features.tensors.transforms import decay

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CountedEvents:
    """Counters of I items as of a start, and the K events that they count from then on."""

    item_keys: Int64s  # (I,), ascending
    counts: Floats  # (I, 2, 4): impressions and clicks, each by half-life
    first_seen_ms: Int64s  # (I,), 0: not before the start
    clicks: Int64s  # (I,), all before the start
    start_ms: Int64s  # (1,)
    event_items: Int64s
    """(K,): places in ``item_keys``, in the order of ``event_visible_ms``."""
    event_occurred_ms: Int64s
    event_visible_ms: Int64s
    event_is_click: NDArray[np.bool_]


def counted_since(log: EventLog, start_ms: int) -> CountedEvents:
    """Return the counters of all items as of ``start_ms``, and the events since."""
    with log.kept(counted_events(log)) as counted:
        keys = _column(log, counted.select("item_key").distinct().order_by("item_key"))
        before = counted.filter(_.visible_at < start_ms, _.is_click)
        clicks = before.group_by("item_key").aggregate(clicks=_.count())
        since = counted.filter(_.visible_at >= start_ms).order_by("visible_at", "offset")
        columns = ("item_key", "occurred_at", "visible_at", "is_click")
        activity = _activity(log, counted, keys, start_ms)
        events, totals = log.rows(since.select(*columns)), log.rows(clicks)
    total_clicks = np.zeros(len(keys), dtype=np.int64)
    total_clicks[_places(keys, totals["item_key"])] = totals["clicks"].to_numpy()
    return CountedEvents(
        item_keys=keys,
        counts=activity.counts,
        first_seen_ms=activity.first_seen_ms,
        clicks=total_clicks,
        start_ms=np.array([start_ms]),
        event_items=_places(keys, events["item_key"]),
        event_occurred_ms=events["occurred_at"].to_numpy(),
        event_visible_ms=events["visible_at"].to_numpy(),
        event_is_click=events["is_click"].to_numpy(),
    )


def _activity(log: EventLog, counted: Table, keys: Int64s, at_ms: int) -> ActivityArrays:
    instants = pa.table(
        {"row": np.arange(len(keys)), "at_ms": np.full(len(keys), at_ms), "owner": keys}
    )
    table = activity_table(log, counted.rename(owner="item_key"), ibis.memtable(instants))
    return activity_of(log.rows(table.order_by("row")))


def _column(log: EventLog, table: Table) -> Int64s:
    keys: Int64s = log.rows(table)["item_key"].to_numpy()
    return keys


def _places(keys: Int64s, of: Any) -> Int64s:
    places: Int64s = np.searchsorted(keys, of.to_numpy()).astype(np.int64)
    return places


class ItemReplay:
    """The counters of all items, moved forward from instant to instant.

    An event is visible to an instant after its ``visible_at``, as everywhere.
    """

    def __init__(self, counted: CountedEvents, windows_ms: Mapping[str, int]) -> None:
        """Begin at the start; ``windows_ms`` names the windows that count clicks.

        A window is exact from the start plus its length on.
        """
        self.item_keys = counted.item_keys
        self._events = counted
        self._at_ms = int(counted.start_ms[0])
        self._counts = counted.counts.copy()
        self._first_seen_ms = counted.first_seen_ms.copy()
        self.clicks = counted.clicks.copy()
        """(I,): all clicks that were visible."""
        self._windows_ms = windows_ms
        self.clicks_within = {name: np.zeros_like(self.clicks) for name in windows_ms}
        """(I,) by window: the clicks that became visible in it."""
        self._seen = 0
        self._expired = dict.fromkeys(windows_ms, 0)

    def advance(self, at_ms: int) -> ActivityArrays:
        """Return the counters (I,) as of ``at_ms``, which is no earlier than before."""
        counted, first = self._events, self._seen
        self._seen = last = int(np.searchsorted(counted.event_visible_ms, at_ms))
        events = slice(first, last)
        self._counts *= decay(at_ms - self._at_ms)
        self._at_ms = at_ms
        items, kind = counted.event_items[events], counted.event_is_click[events]
        occurred_ms = counted.event_occurred_ms[events]
        weights = decay(at_ms - occurred_ms)
        np.add.at(self._counts, (items, kind.astype(np.int64)), weights)
        seen = np.where(self._first_seen_ms > 0, self._first_seen_ms, np.iinfo(int).max)
        np.minimum.at(seen, items, occurred_ms)
        self._first_seen_ms = np.where(seen < np.iinfo(int).max, seen, 0)
        self._count_clicks(items[kind], at_ms)
        return ActivityArrays(
            counts=self._counts,
            counted_at_ms=np.full(len(self.item_keys), at_ms),
            first_seen_ms=self._first_seen_ms,
        )

    def _count_clicks(self, clicked: Int64s, at_ms: int) -> None:
        """Count the ``clicked`` items, and drop those that have left a window."""
        number, counted = len(self.item_keys), self._events
        added = np.bincount(clicked, minlength=number)
        self.clicks += added
        for name, length_ms in self._windows_ms.items():
            first = self._expired[name]
            last = int(np.searchsorted(counted.event_visible_ms, at_ms - length_ms))
            self._expired[name] = last
            gone = counted.event_items[first:last][counted.event_is_click[first:last]]
            self.clicks_within[name] += added - np.bincount(gone, minlength=number)


def best(scores: NDArray[Any], most: int, left_out: Sequence[int] | Int64s) -> Int64s:
    """Return the places of the ``most`` largest positive ``scores``, the largest first.

    None of ``left_out``; of equal scores the first.
    """
    scores = np.asarray(scores, dtype=np.float64).copy()
    scores[left_out] = 0.0
    rows = np.flatnonzero(scores > 0.0)
    if len(rows) > most:
        least = np.partition(scores[rows], len(rows) - most)[len(rows) - most]
        rows = rows[scores[rows] >= least]
    ordered: Int64s = rows[np.argsort(-scores[rows], kind="stable")][:most]
    return ordered
