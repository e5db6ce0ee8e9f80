"""A monitor that reads some partitions; one of the monitors exports the figures of all.

Each keeps the sums of its partitions, and writes them for the others. The monitor that has
partition 0 adds up the sums of all partitions: its own, and of the others what was written
last. A partition that changes hands counts as it was last written, until the monitor that
has taken it over has read as far. The others export only their own health, so that no
figure comes twice.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Metric

from srp4ctr.errors import OutageError
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources
from srp4ctr.monitoring.collector.label_sums import LabelFigures, LabelSums, added
from srp4ctr.monitoring.collector.partition_files import (
    SNAPSHOT,
    SUMS,
    PartitionFiles,
    PartitionWindow,
)
from srp4ctr.monitoring.collector.partition_share import PartitionShare
from srp4ctr.monitoring.collector.snapshot import (
    NOTHING_READ,
    LabelPosition,
    Snapshot,
)
from srp4ctr.monitoring.collector.topic_readers import (
    IsMine,
    LabelBatch,
    LabelReader,
    ShownImpression,
)
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.quality.pending_labels import ProvisionalCounts
from srp4ctr.monitoring.quality.quality_sums import ModelQuality
from srp4ctr.streams.events.schema import LABELS_TOPIC

LOG = logging.getLogger(__name__)
FIRST = 0  # the monitor that has this partition adds up all
# Of the monitor that adds up, and of every other one.
HEALTH = {"srp4ctr_source_up"}
UP_TO_DATE = {"srp4ctr_figures_behind_seconds"}
SUMS_S = 5.0  # between writes of sums, and between additions of all
WINDOWS_S = 2.0  # between writes of windows, which are small
SHARE = 0.05  # of a core, for each at most: sums of many partitions take longer
# A broker that is away for longer may have given our partitions to others.
MAX_AWAY_S = 10.0


class _Due:
    """Says when it is time again, so that the work takes ``SHARE`` of a core at most."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s, self._at_s = interval_s, float("-inf")

    def is_now(self) -> bool:
        return time.monotonic() >= self._at_s

    def reset(self) -> None:
        self._at_s = float("-inf")

    @contextmanager
    def working(self) -> Iterator[None]:
        began_s = time.thread_time()  # a slow disk makes nothing rarer
        yield
        worked_s = time.thread_time() - began_s
        self._at_s = time.monotonic() + max(self._interval_s, worked_s / SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """The sums of a partition as some monitor wrote them last."""

    path: Path
    changed_ns: int
    sums: LabelSums


class SharedMonitor(Monitor):
    """Adds up the partitions that ``share`` has, and all of them if 0 is among these.

    It is its own ``service.LabelFiles``.
    """

    def __init__(
        self,
        sources: MonitorSources,
        config: MonitorConfig,
        share: PartitionShare,
        folder: Path,
    ) -> None:
        self._share = share
        self._mine: frozenset[int] = frozenset()  # what is read now
        self._all: set[int] = set()  # partitions of the topic
        self._reader: LabelReader | None = None
        self._parts: dict[int, LabelSums] = {}
        self._terms: dict[int, int] = {}
        self._written: dict[int, _Written] = {}
        self._figures: LabelFigures | None = None
        self._connected_s = self._updated_s = time.monotonic()
        self._led_ms = round(time.time() * 1000)  # since then it adds up, if it does
        self._add_due, self._sums_due = _Due(SUMS_S), _Due(SUMS_S)
        self._windows_due = _Due(WINDOWS_S)
        self._snapshot_due = _Due(config.snapshot_interval_s)
        super().__init__(sources, config)
        self._files = PartitionFiles(folder, self.windows)

    def choose(self) -> IsMine:
        """Begin with the partitions that this monitor has now."""
        self._mine = self._share.owned()
        return self._mine.__contains__

    def has_changed(self) -> bool:
        """Return whether this monitor has other partitions by now."""
        return self._share.owned() != self._mine

    def start(self, reader: LabelReader) -> None:
        """Take and drop partitions; let ``reader`` resume at the offsets of their sums.

        Raises ``OutageError`` while the reader does not know the partitions yet.
        """
        self._reader, self._all = reader, reader.partitions()
        if not self._all or not self._mine <= self._all:
            raise OutageError(
                f"the broker names the partitions {sorted(self._all)} of {LABELS_TOPIC}, "
                f"and {sorted(self._mine)} are ours: they are looked up again"
            )
        for lost in self._parts.keys() - self._mine:
            # The files of a former term do not count once the next owner has written.
            for kind in (SUMS, SNAPSHOT):
                self._write_one(lost, kind)
            del self._parts[lost], self._terms[lost]
        for partition in sorted(self._mine):
            part = self._parts.get(partition)
            if part is None:
                self._parts[partition] = self._taken(partition, reader)
            elif problem := reader.problem_of(part.position):
                LOG.warning("labels of partition %d are read again: %s", partition, problem)
                part.position = NOTHING_READ
        positions = [each.position for each in self._parts.values()]
        position = LabelPosition(
            offsets={p: at for each in positions for p, at in each.offsets.items()},
            complete_until_ms=min((p.complete_until_ms for p in positions), default=0),
        )
        since_ms = round(time.time() * 1000) - self.label_retention_ms
        reader.start(position, since_ms)
        self._sums_due.reset()

    def _taken(self, partition: int, reader: LabelReader) -> LabelSums:
        """Return the sums of a partition that is new here, by its snapshot."""
        self._terms[partition] = self._files.claim(partition)
        part = self.new_sums()
        path = self._files.written(partition, SNAPSHOT)
        snapshot = self._files.read(path) if path else None
        if path and snapshot:
            if problem := reader.problem_of(snapshot.state.position):
                LOG.warning("%s is not used: %s", path, problem)
            else:
                part.restore(snapshot)
        return part

    def add_labels(self, batch: LabelBatch) -> None:
        """Add one batch of labels, each to the sums of its partition."""
        read = batch.position
        for partition, part in self._parts.items():
            until_ms = max(part.position.complete_until_ms, read.complete_until_ms)
            part.position = LabelPosition(
                topic_id=read.topic_id,
                offsets={p: at for p, at in read.offsets.items() if p == partition},
                complete_until_ms=until_ms,
            )
            part.undecodable += batch.undecodable_in.get(partition, 0)
        for received in batch.labels:
            self._parts[received.partition].add(received)
            self.observe_lag(received)

    def add_impressions(self, shown: list[ShownImpression]) -> None:
        """Add impressions; the labels of a partition of events are in one partition."""
        for each in shown:
            part = self._parts.get(each.partition % max(1, len(self._all)))
            if part is not None:
                part.add_impression(each)
        self.observe_items(shown)

    def settle(self, until_ms: int) -> None:
        """Settle impressions whose label window had closed by ``until_ms``."""
        for each in self._parts.values():
            each.settle(until_ms)

    def observe_broker(self, is_connected: bool) -> None:
        """Set whether the broker is connected."""
        super().observe_broker(is_connected)
        if is_connected:
            self._connected_s = time.monotonic()

    def update(self) -> None:
        """Compute the figures that ``collect`` returns."""
        super().update()
        self._updated_s = time.monotonic()

    def collect(self) -> Iterable[Metric]:
        """Return the families of the last ``update`` that are this monitor's to show.

        They are checked at each scrape: a process that was paused may not lead any more.
        """
        found = super().collect()
        if not self._leads() or time.monotonic() - self._updated_s > MAX_AWAY_S:
            return [each for each in found if each.name in HEALTH]
        if self._figures is None:
            return [each for each in found if each.name in HEALTH | UP_TO_DATE]
        return found

    def qualities(self) -> tuple[ModelQuality, ...]:
        """Return the figures of all partitions as they were added up last."""
        return self._figures.qualities if self._figures else ()

    def label_figures(self, serving: str | None) -> LabelFigures:
        """Return the figures of all partitions; empty ones where these are not known."""
        if not self._leads():
            self._figures = None
            self._led_ms = round(time.time() * 1000)
            self._add_due.reset()
        elif self._add_due.is_now():
            with self._add_due.working():
                self._figures = self._added(serving)
        unknown = LabelFigures(complete_until_ms=self._led_ms, provisional={})
        return self._figures or unknown

    def _leads(self) -> bool:
        is_connected = time.monotonic() - self._connected_s < MAX_AWAY_S
        return is_connected and FIRST in self._share.owned() and FIRST in self._parts

    def _added(self, serving: str | None) -> LabelFigures | None:
        """Return the figures of all partitions; None while sums of one are missing."""
        parts: list[LabelSums] = []
        provisional: list[Mapping[str, ProvisionalCounts]] = []
        for partition in sorted(self._all):
            if self._is_ahead(partition):
                parts.append(self._parts[partition])
                provisional.append(self._parts[partition].open.counts())
            elif sums := self._read_sums(partition):
                parts.append(sums)
                provisional.append(self._files.window(partition).provisional)
            else:
                return None
        return added(parts, provisional, serving)

    def _is_ahead(self, partition: int) -> bool:
        """Return whether our sums of the partition are no older than those written."""
        part = self._parts.get(partition)
        if part is None or part.position == NOTHING_READ:
            return False
        if self._is_written_by_us(partition):
            return True
        written = self._read_sums(partition)
        if written is None or written.position.topic_id != part.position.topic_id:
            return True
        return part.position.complete_until_ms >= written.position.complete_until_ms

    def _is_written_by_us(self, partition: int) -> bool:
        path = self._files.written(partition, SUMS)
        return path is not None and path == self._files.path(
            partition, self._terms[partition], SUMS
        )

    def _read_sums(self, partition: int) -> LabelSums | None:
        """Return what was written last of a partition; None if nothing was."""
        path = self._files.written(partition, SUMS)
        if path is None:
            return None
        known = self._written.get(partition)
        try:
            changed_ns = path.stat().st_mtime_ns
        except FileNotFoundError:  # replaced just now
            return known.sums if known else None
        if known is None or (known.path, known.changed_ns) != (path, changed_ns):
            snapshot = self._files.read(path)
            if snapshot is None:
                return known.sums if known else None
            sums = self.new_sums()
            sums.restore(snapshot)
            known = _Written(path=path, changed_ns=changed_ns, sums=sums)
            self._written[partition] = known
        return known.sums

    def poll(self) -> None:
        """Write what is due of our partitions."""
        if self._windows_due.is_now():
            with self._windows_due.working():
                self._end_windows()
        if self._sums_due.is_now():
            self._write_due(SUMS, self._sums_due)
        if self._snapshot_due.is_now():
            self._write_due(SNAPSHOT, self._snapshot_due)

    def write(self) -> None:
        """Write all of our partitions, for the monitors that take them over."""
        self._write_due(SUMS, self._sums_due)
        self._write_due(SNAPSHOT, self._snapshot_due)

    def _write_due(self, kind: str, due: _Due) -> None:
        with due.working():
            for partition in self._parts.keys() & self._share.owned():
                if self._files.term(partition) > self._terms[partition]:
                    # Another monitor had it meanwhile; the broker returned it.
                    self._terms[partition] = self._files.claim(partition)
                self._write_one(partition, kind)

    def _write_one(self, partition: int, kind: str) -> None:
        """Write a partition unless newer sums are written; a failure is logged."""
        if not self._is_ahead(partition):
            return
        snapshot, term = self._parts[partition].snapshot(), self._terms[partition]
        if kind == SUMS:
            snapshot = Snapshot(state=snapshot.state, entries=())
        try:
            self._files.write(partition, term, kind, snapshot)
        except OSError as error:
            LOG.warning("%s of partition %d: %s", kind, partition, error)

    def _end_windows(self) -> None:
        """End our partitions' windows with the newest impression of all partitions.

        A partition that is behind does not know impressions that are newer than its labels,
        as it would not if one monitor read all partitions by time.
        """
        if self._reader:
            self._all = self._reader.partitions() or self._all  # a topic may grow
        windows = [self._files.window(each) for each in self._all - self._mine]
        windows += [_window_of(each) for each in self._parts.values()]
        for part in self._parts.values():
            until_ms = part.position.complete_until_ms
            known = (w.newest_ms for w in windows if w.complete_until_ms <= until_ms)
            part.quality.end_window(max(known, default=0))
        for partition, part in self._parts.items():
            if partition in self._share.owned() and self._is_ahead(partition):
                with suppress(OSError):  # the sums, which are larger, say so
                    self._files.write_window(partition, _window_of(part))


def _window_of(part: LabelSums) -> PartitionWindow:
    return PartitionWindow(
        newest_ms=part.quality.newest_ms,
        complete_until_ms=part.position.complete_until_ms,
        provisional=part.open.counts(),
    )
