"""Impression labels → live quality per model version, over a sliding window.

In: ``ImpressionLabel`` records of any partition, in any order, any number of times.
Out: ``ModelQuality`` of each model version over the last ``window_ms`` of event time.

An impression counts only when it is *settled*: its label window has closed. The label of a
click is published at once and that of a missing click at the window's end, so counting
labels on arrival would show the newest impressions as all clicked. A label without a click
in time proves that, in its partition, all windows that began no later have closed.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from srp4ctr.monitoring.quality.ab_test import AbTest
from srp4ctr.monitoring.quality.quality_sums import (
    ModelQuality,
    QualitySums,
    SettledImpression,
)
from srp4ctr.monitoring.quality.user_groups import user_group
from srp4ctr.monitoring.quality.version_order import version_name
from srp4ctr.streams.state.label_join import ImpressionLabel

Key = tuple[str, str, str]  # user, request, item: a request's id is its user's own


class Entry(msgspec.Struct, kw_only=True, gc=False, array_like=True):
    """A label of the window."""

    impression: SettledImpression
    revision: int
    is_counted: bool


class LiveQualityState(msgspec.Struct, frozen=True, kw_only=True):
    """All of a ``LiveQuality`` but its entries."""

    sums: dict[str, QualitySums]
    settled_ms: dict[int, int]
    newest_ms: int
    unsettled: dict[int, list[tuple[int, Key]]]


class LiveQuality:
    """Keeps the labels of the window, once each, and the sums of the settled ones.

    ``ab_test`` is updated with settled impressions and with corrections in the window. The
    versions in ``bundles``, which may change, always have figures of their own.
    """

    def __init__(
        self,
        *,
        window_ms: int,
        label_window_ms: int,
        ab_test: AbTest | None = None,
        bundles: Collection[str] = (),
    ) -> None:
        self._bundles = bundles
        self._window_ms = window_ms
        self._label_window_ms = label_window_ms
        self._entries: dict[Key, Entry] = {}
        self._sums: dict[str, QualitySums] = {}
        self._versions: Counter[str] = Counter()  # entries of each, settled or not
        self._settled_ms: dict[int, int] = defaultdict(int)  # per partition
        self._newest_ms = 0  # the latest settled impression: the window ends with it
        self._unsettled: dict[int, list[tuple[int, Key]]] = defaultdict(list)  # heaps
        self._by_age: list[tuple[int, Key]] = []  # heap: what leaves the window next
        self._ab_test = ab_test or AbTest()

    def add(self, label: ImpressionLabel, partition: int) -> None:
        """Add one label; a repeated or older revision changes nothing."""
        self._put(label, partition)
        if not (label.clicked and label.within_window):
            self._settled_ms[partition] = max(
                self._settled_ms[partition], label.impression_at
            )
        self._settle(partition)
        self._expire()

    def advance(self, until_ms: int) -> None:
        """Settle impressions of idle partitions: all labels due by ``until_ms`` are added.

        Call it only while a running worker has read everything.
        """
        for partition in list(self._unsettled):
            self._settled_ms[partition] = max(
                self._settled_ms[partition], until_ms - self._label_window_ms
            )
            self._settle(partition)
        self._expire()

    def end_window(self, newest_ms: int) -> None:
        """End the window at ``newest_ms`` or later: of all partitions, not of ours only."""
        self._newest_ms = max(self._newest_ms, newest_ms)
        self._expire()

    def quality(self) -> tuple[ModelQuality, ...]:
        """Return the figures of each model version with impressions in the window."""
        return qualities_of(self._sums)

    @property
    def sums(self) -> Mapping[str, QualitySums]:
        """The sums of each model version; they change with the next label."""
        return self._sums

    @property
    def newest_ms(self) -> int:
        """When the newest settled impression was shown; 0 before the first."""
        return self._newest_ms

    def is_clicked(self, key: Key) -> bool | None:
        """Return whether an impression's label is a click; None without a label."""
        entry = self._entries.get(key)
        return None if entry is None else entry.impression.is_click

    def state(self) -> LiveQualityState:
        """Return all but the entries; it changes with the next label."""
        return LiveQualityState(
            sums=self._sums,
            settled_ms=self._settled_ms,
            newest_ms=self._newest_ms,
            unsettled=self._unsettled,
        )

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield the entries of the window, each with its item."""
        return ((key[2], entry) for key, entry in self._entries.items())

    def restore(
        self, state: LiveQualityState, entries: Iterable[tuple[str, Entry]]
    ) -> None:
        """Continue from ``state`` and ``entries``; call it before the first label."""
        self._entries = {
            (*entry.impression.request, item): entry for item, entry in entries
        }
        self._by_age = [(e.impression.shown_at, key) for key, e in self._entries.items()]
        heapq.heapify(self._by_age)
        self._versions.update(e.impression.model_version for e in self._entries.values())
        self._sums = state.sums
        self._settled_ms.update(state.settled_ms)
        self._newest_ms = state.newest_ms
        self._unsettled.update(state.unsettled)

    def _put(self, label: ImpressionLabel, partition: int) -> None:
        key = (label.user_id, label.request_id, label.item_id)
        entry = self._entries.get(key)
        if entry is None:
            if label.impression_at <= self._newest_ms - self._window_ms:
                return  # it is outside the window
            version = version_name(label.model_version, self._versions, self._bundles)
            impression = _settled_impression(label, version)
            self._versions[version] += 1
            self._entries[key] = Entry(
                impression=impression, revision=label.revision, is_counted=False
            )
            heapq.heappush(self._unsettled[partition], (label.impression_at, key))
            heapq.heappush(self._by_age, (label.impression_at, key))
        elif label.revision > entry.revision:
            self._correct(entry, label)

    def _correct(self, entry: Entry, label: ImpressionLabel) -> None:
        if entry.is_counted:
            self._count(entry.impression, -1)
        entry.impression = _settled_impression(label, entry.impression.model_version)
        entry.revision = label.revision
        if entry.is_counted:
            self._count(entry.impression, 1)

    def _settle(self, partition: int) -> None:
        """Count impressions of ``partition`` whose windows have closed."""
        waiting = self._unsettled[partition]
        while waiting and waiting[0][0] <= self._settled_ms[partition]:
            shown_ms, key = heapq.heappop(waiting)
            self._newest_ms = max(self._newest_ms, shown_ms)
            entry = self._entries.get(key)
            if entry and not entry.is_counted:  # otherwise it left the window
                entry.is_counted = True
                self._count(entry.impression, 1)

    def _expire(self) -> None:
        """Subtract impressions that have left the window."""
        oldest_ms = self._newest_ms - self._window_ms
        while self._by_age and self._by_age[0][0] <= oldest_ms:
            _, key = heapq.heappop(self._by_age)
            if (entry := self._entries.pop(key, None)) is None:
                continue
            self._versions -= Counter([entry.impression.model_version])
            if entry.is_counted:
                self._update(entry.impression, -1)

    def _count(self, impression: SettledImpression, sign: int) -> None:
        self._update(impression, sign)
        self._ab_test.update(impression, sign)

    def _update(self, impression: SettledImpression, sign: int) -> None:
        sums = self._sums.setdefault(impression.model_version, QualitySums())
        sums.update(impression, sign)
        if sums.impressions == 0:  # new sums have no rounding errors
            del self._sums[impression.model_version]


def qualities_of(sums: Mapping[str, QualitySums]) -> tuple[ModelQuality, ...]:
    """Return the figures of each model version with impressions."""
    return tuple(
        each.quality(version) for version, each in sorted(sums.items()) if each.impressions
    )


def _settled_impression(label: ImpressionLabel, model_version: str) -> SettledImpression:
    return SettledImpression(
        model_version=model_version,
        experiment=label.experiment,
        arm=label.arm,
        request=(label.user_id, label.request_id),
        user_group=user_group(label.user_id),
        position=label.position,
        shown_at=label.impression_at,
        score=label.score,
        propensity=label.propensity,
        is_click=label.clicked and label.within_window,
        is_late_click=label.clicked and not label.within_window,
    )
