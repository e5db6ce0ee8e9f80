"""Impressions without a final label → provisional counts, and overdue labels.

In: impressions and labels. Out: per model version the number of open impressions, of those
clicked so far, and of impressions whose label is overdue. A click is known at once and a
missing click only when the label window closes: a rate over open impressions is too low,
and is never mixed with that of settled ones.
"""

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from srp4ctr.monitoring.quality.live_quality import Key
from srp4ctr.monitoring.quality.version_order import version_name
from srp4ctr.streams.events.schema import Impression
from srp4ctr.streams.state.label_join import ImpressionLabel

GRACE_MS = 60_000  # labels follow within seconds; a rebalance of workers takes longer


@dataclass(slots=True)
class ProvisionalCounts:
    """Counts of one model version."""

    open: int = 0
    """Impressions whose label window has not closed."""
    clicked: int = 0
    """Of those."""
    overdue: int = 0
    """Impressions whose window has closed without a label."""

    def add(self, other: "ProvisionalCounts") -> None:
        """Add the impressions of ``other``."""
        self.open += other.open
        self.clicked += other.clicked
        self.overdue += other.overdue


@dataclass(slots=True)
class _OpenImpression:
    version: str
    shown_at: int
    is_clicked: bool
    is_overdue: bool = False


class OpenImpressions:
    """Keeps impressions until their label arrives, or they leave the window."""

    def __init__(
        self, *, window_ms: int, label_window_ms: int, bundles: Collection[str] = ()
    ) -> None:
        self._bundles = bundles
        self._window_ms = window_ms
        self._closes_after_ms = label_window_ms
        self._open: dict[Key, _OpenImpression] = {}
        self._counts: dict[str, ProvisionalCounts] = {}
        self._closing: list[tuple[int, Key]] = []  # heaps by time shown
        self._waiting: list[tuple[int, Key]] = []
        self._leaving: list[tuple[int, Key]] = []
        self._clock_ms = 0

    def add(self, shown: Impression, known_ms: int, is_clicked: bool | None) -> None:
        """Add an impression that became known at ``known_ms``.

        ``is_clicked`` is its label's, if that has arrived already.
        """
        key = (shown.user_id, shown.request_id, shown.item_id)
        if key in self._open or is_clicked is False:
            return
        version = version_name(shown.model_version, self._counts, self._bundles)
        self._open[key] = _OpenImpression(version, shown.occurred_at, bool(is_clicked))
        count = self._counts.setdefault(version, ProvisionalCounts())
        count.open += 1
        count.clicked += bool(is_clicked)
        heapq.heappush(self._closing, (shown.occurred_at, key))
        self.advance(min(shown.occurred_at, known_ms))  # a wrong clock closes no window

    def label(self, label: ImpressionLabel) -> None:
        """Add a label: without a click in time, it settles the impression."""
        key = (label.user_id, label.request_id, label.item_id)
        entry = self._open.get(key)
        if entry is None:
            return
        is_closed = entry.shown_at <= self._clock_ms - self._closes_after_ms
        if is_closed or not (label.clicked and label.within_window):
            self._remove(key, entry)
        elif not entry.is_clicked:
            entry.is_clicked = True
            self._counts[entry.version].clicked += 1

    def advance(self, until_ms: int) -> None:
        """Close the windows that had closed by ``until_ms``, in event time."""
        self._clock_ms = max(self._clock_ms, until_ms)
        closed_ms = self._clock_ms - self._closes_after_ms
        for key, entry in self._due(self._closing, closed_ms):
            if entry.is_clicked:
                self._remove(key, entry)
            else:  # wait for its label
                heapq.heappush(self._waiting, (entry.shown_at, key))
        for key, entry in self._due(self._waiting, closed_ms - GRACE_MS):
            entry.is_overdue = True
            count = self._counts[entry.version]
            count.open, count.overdue = count.open - 1, count.overdue + 1
            heapq.heappush(self._leaving, (entry.shown_at, key))
        for key, entry in self._due(self._leaving, closed_ms - GRACE_MS - self._window_ms):
            self._remove(key, entry)

    def counts(self) -> dict[str, ProvisionalCounts]:
        """Return the counts of each model version that has any."""
        return dict(sorted(self._counts.items()))

    def _remove(self, key: Key, entry: _OpenImpression) -> None:
        count = self._counts[entry.version]
        count.clicked -= entry.is_clicked
        count.overdue -= entry.is_overdue
        count.open -= not entry.is_overdue
        del self._open[key]
        if not count.open and not count.overdue:
            del self._counts[entry.version]

    def _due(
        self, heap: list[tuple[int, Key]], until_ms: int
    ) -> Iterator[tuple[Key, _OpenImpression]]:
        while heap and heap[0][0] <= until_ms:
            key = heapq.heappop(heap)[1]
            if (entry := self._open.get(key)) is not None:
                yield key, entry
