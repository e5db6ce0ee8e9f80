"""Labels, Triton's counters and cost cards → the Prometheus endpoint of the monitor.

In: topic ``impression-labels``, Triton's metrics page, the serving version, the bundles'
cards, the newest check of the feature store and how the last refresh ended. Out:
``http://host:port/metrics``. One thread folds; the HTTP server's threads only hand out the
last finished list, so that a scrape never waits for a broker.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, Metric, start_http_server
from prometheus_client.registry import Collector

from features import bundle
from features.check_report import read_report
from monitoring import triton_metrics
from monitoring.config import MonitorConfig
from monitoring.gauges import View, families
from monitoring.label_reader import LabelBatch, LabelReader
from monitoring.live_quality import LiveQuality
from monitoring.serving_cost import CostCard, ServingTotals, flops, served_versions
from monitoring.worker_watch import QuietSpell, WorkerWatch
from streams.config import KafkaConfig
from training.refresh_status import read_status

LOG = logging.getLogger(__name__)
IDLE_S = 0.2  # between empty reads; the embedded broker answers an empty fetch at once
RETRY_S = 2.0
WATCH_S = 2.0  # between two questions after the worker; one takes some milliseconds
LIVE_LAG_S = 3600.0  # an older label is a backfill's: its lag says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSources:
    """Where the monitor looks."""

    kafka: KafkaConfig
    triton_metrics_url: str
    repository: Path
    """The live model repository; ``serving.json`` in it names the serving version."""
    bundles_dir: Path
    label_window_s: float
    """As the stream worker has it: an impression is settled after so long."""
    worker_group: str = "srp4ctr-sequences"
    """The stream worker's consumer group: the clock settles only while it has caught up."""
    feature_check: Path
    """Where checks of the feature store leave their report."""


class Monitor(Collector):
    """Folds what its sources say; ``collect`` hands out the figures of the last turn."""

    def __init__(self, sources: MonitorSources, config: MonitorConfig) -> None:
        self._sources = sources
        self._quality = LiveQuality(
            window_ms=int(config.window_s * 1000),
            label_window_ms=int(sources.label_window_s * 1000),
        )
        self._totals = ServingTotals()
        self._cards: dict[str, CostCard] = {}
        self._up = {"labels": False, "triton": False}
        self._undecodable = 0
        self._families: list[Metric] = []
        self.registry = CollectorRegistry()
        self._maturity_lag = Histogram(
            "srp4ctr_label_maturity_lag_seconds",
            "From the moment a label was due, in event time, to its publication.",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
            registry=self.registry,
        )
        self.registry.register(self)
        self.show()

    def collect(self) -> Iterable[Metric]:
        """Return the families of the last ``show``."""
        return self._families

    def fold_labels(self, batch: LabelBatch) -> None:
        """Take in one batch of labels."""
        self._undecodable += batch.undecodable
        for received in batch.labels:
            self._quality.add(received.label, received.partition)
            lag_s = (received.published_ms - received.label.matured_at) / 1000
            if lag_s < LIVE_LAG_S:
                self._maturity_lag.observe(max(0.0, lag_s))

    def settle(self, until_ms: int) -> None:
        """Count what waits for a later label, if its window had closed by ``until_ms``."""
        self._quality.advance(until_ms)

    def hear_labels(self, is_connected: bool) -> None:
        """Say whether there is a broker to read labels from."""
        self._up["labels"] = is_connected

    def poll_triton(self) -> None:
        """Take in Triton's counters and the cost cards of the versions that it serves."""
        try:
            self._totals.add(triton_metrics.fetch(self._sources.triton_metrics_url))
            self._up["triton"] = True
        except (OSError, ValueError) as error:
            if self._up["triton"]:
                LOG.warning("%s: %s", self._sources.triton_metrics_url, error)
            self._up["triton"] = False
        for version in served_versions(self._totals):
            if version not in self._cards:
                self._cards[version] = _cost_card(self._sources.bundles_dir / version)

    def show(self) -> None:
        """Make the figures of this moment the ones that are handed out."""
        view = View(
            qualities=self._quality.quality(),
            totals=self._totals,
            flops=flops(self._totals, self._cards),
            serving_version=serving_version(self._sources.repository),
            source_up=self._up,
            undecodable_labels=self._undecodable,
            feature_check=read_report(self._sources.feature_check),
            refresh=read_status(self._sources.bundles_dir),
            now_ms=round(time.time() * 1000),
        )
        self._families = families(view)


def run_monitor(
    sources: MonitorSources, config: MonitorConfig, stop: threading.Event
) -> None:
    """Serve the metrics until ``stop`` is set; a source that is away is waited for.

    Raises ``ValueError`` if ``config.port`` is taken.
    """
    monitor = Monitor(sources, config)
    try:
        server, _ = start_http_server(config.port, config.host, monitor.registry)
    except OSError as error:
        where = f"{config.host}:{config.port} (monitoring.port)"
        raise ValueError(f"cannot listen on {where}: {error.strerror}") from error
    poller = _Poller(monitor, config.poll_interval_s)
    try:
        while not stop.is_set():
            try:
                _follow_labels(monitor, poller, sources, stop)
            except ConnectionError as error:  # the next reader starts anew
                LOG.warning("%s", error)
                monitor.hear_labels(False)
                poller.turn()
                stop.wait(RETRY_S)
    finally:
        server.shutdown()
        server.server_close()


class _Poller:
    """Polls Triton and refreshes the figures, at most once an interval."""

    def __init__(self, monitor: Monitor, interval_s: float) -> None:
        self._monitor, self._interval_s, self._due = monitor, interval_s, 0.0

    def turn(self) -> None:
        if time.monotonic() >= self._due:
            self._monitor.poll_triton()
            self._monitor.show()
            self._due = time.monotonic() + self._interval_s


class _Settler:
    """Lets the clock settle impressions while the worker has nothing left to label."""

    def __init__(self, monitor: Monitor, watch: WorkerWatch) -> None:
        self._monitor, self._watch, self._due = monitor, watch, 0.0
        self._spell = QuietSpell()

    def turn(self, *, is_quiet: bool) -> None:
        if not is_quiet:
            self._spell.interrupt()
        elif time.monotonic() >= self._due:
            asked_ms = round(time.time() * 1000)
            until_ms = self._spell.observe(self._watch.progress(), asked_ms)
            if until_ms is not None:
                self._monitor.settle(until_ms)
            self._due = time.monotonic() + WATCH_S

    def close(self) -> None:
        self._watch.close()


def _follow_labels(
    monitor: Monitor, poller: _Poller, sources: MonitorSources, stop: threading.Event
) -> None:
    """Read labels until ``stop`` is set; raises ``ConnectionError`` if the broker fails.

    Whatever was folded before is folded again by the next reader, to no effect.
    """
    reader = LabelReader(sources.kafka)
    settler = _Settler(monitor, WorkerWatch(sources.kafka, sources.worker_group))
    try:
        while not stop.is_set():
            batch = reader.read()
            monitor.fold_labels(batch)
            monitor.hear_labels(reader.is_connected)
            settler.turn(is_quiet=reader.is_connected and not batch.labels)
            poller.turn()
            if not batch.labels:
                stop.wait(IDLE_S)
    finally:
        settler.close()
        reader.close()


def serving_version(repository: Path) -> str | None:
    """Return the version that promotion made the serving one; None before the first."""
    try:
        serving: Mapping[str, object] = json.loads(
            (repository / "serving.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return None
    version = serving.get("serving")
    return version if isinstance(version, str) else None


def _cost_card(folder: Path) -> CostCard:
    """Return the cost card of the bundle in ``folder``; zeros if it is gone."""
    try:
        cost = bundle.read(folder).cost
    except ValueError as error:
        LOG.warning("no cost card: %s", error)
        return CostCard()
    names = ("encoder_flops", "folded_flops", "unfolded_flops")
    return CostCard(**{name: float(cost.get(name, 0.0)) for name in names})
