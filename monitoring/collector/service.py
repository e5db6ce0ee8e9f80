"""Sources → the monitor process, which serves ``http://host:port/metrics`` until stopped.

It resumes from its last snapshot. One thread reads labels, impressions, the worker's
progress and Triton's counters; a second one probes, if ``monitoring.probe_interval_s`` is
set.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from srp4ctr.listening import metrics_page
from srp4ctr.monitoring.collector.consumer_lag import IdlePeriod, WorkerProgressReader
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources
from srp4ctr.monitoring.collector.partition_share import (
    ConsumerGroup,
    FileLocks,
    PartitionShare,
    count_partitions,
)
from srp4ctr.monitoring.collector.probe import Probe
from srp4ctr.monitoring.collector.shared_monitor import SharedMonitor
from srp4ctr.monitoring.collector.snapshot import NOTHING_READ, LabelPosition, SnapshotFile
from srp4ctr.monitoring.collector.topic_readers import (
    ImpressionReader,
    IsMine,
    LabelReader,
    events_of,
)
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.retries import retry

LOG = logging.getLogger(__name__)
IDLE_S = 0.2  # between empty reads; the embedded broker answers an empty fetch at once
PROGRESS_S = 2.0  # between reads of the worker's progress; a read takes milliseconds
SNAPSHOT_SHARE = 0.05  # of the time: with a long window a snapshot takes seconds
ProbeFactory = Callable[[Callable[[], Sequence[str]], CollectorRegistry], Probe]
"""(known items, registry of the probe's metrics) → a probe."""


def run_monitor(
    sources: MonitorSources,
    config: MonitorConfig,
    stop: threading.Event,
    probe_factory: ProbeFactory | None = None,
    collectors: Iterable[Collector] = (),
) -> None:
    """Serve the metrics until ``stop`` is set; reconnect to sources that are down.

    ``probe_factory`` makes the probe if there is an interval. Raises ``MistakeError``
    for a taken port or a broker that refuses us, and any error that no retry can heal.
    """
    with ExitStack() as opened:
        monitor: Monitor
        snapshots: LabelFiles
        if share := share_of(sources, config):
            shared = SharedMonitor(sources, config, share, sources.shared_folder)
            monitor, snapshots = shared, shared
            opened.enter_context(closing(share))
            share.start()
        else:
            monitor = Monitor(sources, config)
            snapshots = Snapshots(monitor, sources.snapshot, config.snapshot_interval_s)
        for collector in collectors:
            monitor.registry.register(collector)
        _serve(monitor, snapshots, sources, config, stop, probe_factory)


def share_of(sources: MonitorSources, config: MonitorConfig) -> PartitionShare | None:
    """Return which partitions are this monitor's; None if all of them are."""
    if config.share_by == "group":
        return ConsumerGroup(sources.kafka, config.group_id)
    if config.share_by == "locks":
        return FileLocks(sources.shared_folder, lambda: count_partitions(sources.kafka))
    return None


class LabelFiles(Protocol):
    """Where the sums of labels are written, and which partitions are read."""

    def choose(self) -> IsMine | None:
        """Return which partitions are read from now on; None for all."""

    def has_changed(self) -> bool:
        """Return whether these are others by now."""

    def start(self, reader: LabelReader) -> None:
        """Let ``reader`` resume at the offsets of the sums."""

    def poll(self) -> None:
        """Write what is due."""

    def write(self) -> None:
        """Write all."""


def _serve(  # noqa: PLR0913
    monitor: Monitor,
    snapshots: LabelFiles,
    sources: MonitorSources,
    config: MonitorConfig,
    stop: threading.Event,
    probe_factory: ProbeFactory | None,
) -> None:
    poller = _TritonPoller(monitor, config.poll_interval_s)

    def wait(pause_s: float) -> None:
        monitor.observe_broker(False)
        end = time.monotonic() + pause_s
        while (left_s := end - time.monotonic()) > 0 and not stop.is_set():
            poller.poll()
            stop.wait(min(left_s, config.poll_interval_s))

    def read() -> None:
        while not stop.is_set():
            _read_streams(monitor, poller, snapshots, sources, stop)

    with _page(monitor, config), ThreadPoolExecutor(1, "probe") as executor:
        probing = None
        if probe_factory and (every_s := config.probe_interval_s):
            probe = probe_factory(lambda: monitor.recent_items, monitor.registry)
            probing = executor.submit(_run_probe, probe, every_s, stop)
        try:
            with suppress(ConnectionError):  # stopped during an outage
                retry("read_topics", read, should_stop=stop.is_set, sleep=wait)
            snapshots.write()
        finally:
            stop.set()
        if probing:
            probing.result()


def _page(monitor: Monitor, config: MonitorConfig) -> AbstractContextManager[int]:
    """Return the metrics page of ``monitor``."""
    return metrics_page(config.host, config.port, "monitoring.port", monitor.registry)


def _run_probe(probe: Probe, interval_s: float, stop: threading.Event) -> None:
    """Probe until ``stop`` is set; a bug of the probe sets it, and ends the monitor."""
    try:
        probe.run(interval_s, stop)
    finally:
        stop.set()


class _TritonPoller:
    """Polls Triton and updates the figures, at most once per interval."""

    def __init__(self, monitor: Monitor, interval_s: float) -> None:
        self._monitor, self._interval_s, self._due = monitor, interval_s, 0.0

    def poll(self) -> None:
        if time.monotonic() >= self._due:
            self._monitor.poll_triton()
            self._monitor.update()
            self._due = time.monotonic() + self._interval_s


class Snapshots:
    """Writes the sums of labels at intervals, and lets a new monitor resume from them."""

    def __init__(self, monitor: Monitor, path: Path | None, interval_s: float) -> None:
        self._monitor, self._interval_s = monitor, interval_s
        self._file = SnapshotFile(path, monitor.windows) if path else None
        self._is_restored = False
        self._due = time.monotonic() + interval_s

    def choose(self) -> None:
        """Read all partitions."""

    def has_changed(self) -> bool:
        """Return False: all partitions are read."""
        return False

    def start(self, reader: LabelReader) -> None:
        """Let ``reader`` resume at the offsets of the monitor's figures or its snapshot."""
        position = self._monitor.label_position
        if not self._is_restored:
            position = self._restored(reader)
        elif problem := reader.problem_of(position):
            LOG.warning("labels are read again: %s", problem)
            position = NOTHING_READ
        since_ms = round(time.time() * 1000) - self._monitor.label_retention_ms
        reader.start(position, since_ms)

    def poll(self) -> None:
        """Write the snapshot when it is due."""
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the snapshot if a label's position is known; a failure is logged."""
        if not self._file or not self._monitor.label_position.offsets:
            return
        began = time.monotonic()
        try:
            self._file.write(self._monitor.snapshot())
        except OSError as error:
            LOG.warning("no snapshot, so a restart takes longer: %s", error)
        ended = time.monotonic()
        self._due = ended + max(self._interval_s, (ended - began) / SNAPSHOT_SHARE)

    def _restored(self, reader: LabelReader) -> LabelPosition:
        """Let the monitor resume from its file, if it can be used; return the position."""
        snapshot = self._file.read() if self._file else None
        if self._file and snapshot:
            if problem := reader.problem_of(snapshot.state.position):
                self._file.ignore(problem)
            else:
                self._monitor.restore(snapshot)
        self._is_restored = True
        return self._monitor.label_position


class Settlement:
    """Settles impressions by the clock while the worker is idle and has caught up."""

    def __init__(self, monitor: Monitor, reader: WorkerProgressReader) -> None:
        self._monitor, self._reader, self._due = monitor, reader, 0.0
        self._idle = IdlePeriod()

    def poll(self, *, is_idle: bool) -> None:
        """Read the worker's progress when it is due; settle impressions if it is idle."""
        if not is_idle:
            self._idle.reset()
        if time.monotonic() < self._due:
            return
        now_ms, progress = round(time.time() * 1000), self._reader.read()
        self._monitor.observe_worker(progress)
        if is_idle:
            until_ms = self._idle.observe(progress, now_ms)
            if until_ms is not None:
                self._monitor.settle(until_ms)
        self._due = time.monotonic() + PROGRESS_S

    def close(self) -> None:
        """Close the connection to the broker."""
        self._reader.close()


def _read_streams(
    monitor: Monitor,
    poller: _TritonPoller,
    snapshots: LabelFiles,
    sources: MonitorSources,
    stop: threading.Event,
) -> None:
    """Read labels until ``stop`` is set, or other partitions are this monitor's.

    Raises ``OutageError`` if the broker fails.

    The next reader resumes after the last label that was added.
    """
    with ExitStack() as opened:
        is_mine = snapshots.choose()
        reader = opened.enter_context(closing(LabelReader(sources.kafka, is_mine)))
        snapshots.start(reader)
        since_ms = round(time.time() * 1000) - monitor.retention_ms
        shown = ImpressionReader(sources.kafka, since_ms, events_of(is_mine, reader))
        opened.enter_context(closing(shown))
        progress = WorkerProgressReader(sources.kafka, sources.worker_group)
        settlement = opened.enter_context(closing(Settlement(monitor, progress)))
        while not stop.is_set() and not snapshots.has_changed():
            batch, impressions = reader.read(), shown.read()
            monitor.add_labels(batch)
            monitor.add_impressions(impressions)
            monitor.observe_broker(reader.is_connected)
            settlement.poll(is_idle=reader.is_connected and not batch.labels)
            snapshots.poll()
            poller.poll()
            if not batch.labels and not impressions:
                stop.wait(IDLE_S)
