"""Labels, Triton's counters and cost cards → the Prometheus collector of the monitor.

In: topics ``impression-labels`` and ``behavior-events``, Triton's metrics page, the serving
version, the bundles' cards, the newest checks and the last refresh's status. One thread
updates the figures; the HTTP server's threads return the last finished list, so a scrape
never waits for a broker.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from srp4ctr import metrics
from srp4ctr.atomic_files import read_json
from srp4ctr.features.bundles.crash_counts import read_crashes
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.monitoring.collector.bundle_cache import BundleCache
from srp4ctr.monitoring.collector.collector import MachinePrices, View, families
from srp4ctr.monitoring.collector.consumer_lag import WorkerProgress
from srp4ctr.monitoring.collector.label_sums import LabelFigures, LabelSums
from srp4ctr.monitoring.collector.snapshot import LabelPosition, Snapshot
from srp4ctr.monitoring.collector.topic_readers import (
    LabelBatch,
    ReceivedLabel,
    ShownImpression,
)
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.cost.triton_counters import flops, served_versions
from srp4ctr.monitoring.cost.triton_servers import TritonServers
from srp4ctr.monitoring.quality.ab_test import HORIZON_SLICES, SLICE_MS
from srp4ctr.monitoring.quality.drift import Drift
from srp4ctr.monitoring.quality.pending_labels import GRACE_MS
from srp4ctr.monitoring.quality.quality_sums import ModelQuality
from srp4ctr.retries import RETRIES
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.training.refresh.reports import (
    SERVED_CHECK_FILE,
    STATUS_FILE,
    RefreshStatus,
    ServedReport,
)

LOG = logging.getLogger(__name__)
RECENT_ITEMS = 20
# An older label is a backfill's; most labels of unranked impressions are, too.
LIVE_LAG_S = 3600.0
RETRIED = ("poll_triton", "read_topics", "read_consumer_lag")


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSources:
    """What the monitor reads."""

    kafka: KafkaConfig
    triton_metrics: Mapping[str, str]
    """The address of each Triton's metrics page by the server's name."""
    has_model: Callable[[str], bool | None] | None = None
    """Whether the server of this name has ``rank_clicks`` ready; None: unknown."""
    repository: Path
    """The live model repository; ``serving.json`` in it names the serving version, and
    ``deaths.json`` the crashes of its processes."""
    bundles_dir: Path
    label_window_s: float
    """The stream worker's: an impression is settled when it is over."""
    worker_group: str = "srp4ctr-sequences"
    """The stream worker's: the clock settles impressions only while it has caught up."""
    feature_check: Path
    """Report of the feature store check; its folder has the skew check's as well."""
    snapshot: Path | None = None
    """The file of the sums of labels; None: each start reads the labels of two weeks."""
    shared_folder: Path = Path("monitors")
    """The files of monitors that share the partitions (``monitoring.share_by``)."""


class Monitor(Collector):
    """Adds up its sources; ``collect`` returns the figures of the last ``update``."""

    def __init__(self, sources: MonitorSources, config: MonitorConfig) -> None:
        self._sources, self._config = sources, config
        self._existing = set[str]()  # bundles, whose figures are never among the others
        self.windows = {
            "window_ms": int(config.window_s * 1000),
            "label_window_ms": int(sources.label_window_s * 1000),
        }
        self._labels = self.new_sums()
        self._servers = TritonServers(
            sources.triton_metrics, config.window_s, sources.has_model
        )
        self._bundles = BundleCache(sources.bundles_dir)
        self._drift = Drift(config.window_s)
        self._lag: dict[str, int] = {}
        self._recent_items: dict[str, None] = {}  # a set that keeps their order
        self._up = {"labels": False, "triton": False}
        self._families: list[Metric] = []
        self.registry = CollectorRegistry()
        self._maturity_lag = metrics.histogram(
            "srp4ctr_label_maturity_lag_seconds", self.registry
        )
        self.registry.register(self)
        self.registry.register(RETRIES)
        for operation in RETRIED:
            RETRIES.labels(operation)  # starts at 0: a rate needs a first value
        self.update()

    @property
    def retention_ms(self) -> int:
        """How long after it was shown an impression still waits for a label."""
        windows_s = self._config.window_s + self._sources.label_window_s
        return int(windows_s * 1000) + GRACE_MS

    @property
    def label_position(self) -> LabelPosition:
        """Up to where the labels of the topic are in the figures."""
        return self._labels.position

    @property
    def label_retention_ms(self) -> int:
        """How long after its publication a label matters to some figure."""
        return HORIZON_SLICES * SLICE_MS + self.retention_ms

    @property
    def recent_items(self) -> list[str]:
        """Recently shown items, for the probe; none before a model serves."""
        is_served = serving_version(self._sources.repository) is not None
        return list(self._recent_items) if is_served else []

    def new_sums(self) -> LabelSums:
        """Return the sums of no label."""
        return LabelSums(self.windows, self._config.expected_difference, self._existing)

    def qualities(self) -> tuple[ModelQuality, ...]:
        """Return the live figures of each model version now."""
        return self._labels.quality.quality()

    def collect(self) -> Iterable[Metric]:
        """Return the families of the last ``update``."""
        return self._families

    def snapshot(self) -> Snapshot:
        """Return the sums of labels; the next label changes them."""
        return self._labels.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from ``snapshot``; call it before the first label."""
        self._labels.restore(snapshot)

    def add_labels(self, batch: LabelBatch) -> None:
        """Add one batch of labels."""
        self._labels.position = batch.position
        self._labels.undecodable += batch.undecodable
        for received in batch.labels:
            self._labels.add(received)
            self.observe_lag(received)

    def observe_lag(self, received: ReceivedLabel) -> None:
        """Add how late the label was published, unless it is a backfill's."""
        lag_s = (received.published_ms - received.label.matured_at) / 1000
        if received.label.model_version and lag_s < LIVE_LAG_S:
            self._maturity_lag.observe(max(0.0, lag_s))

    def add_impressions(self, shown: list[ShownImpression]) -> None:
        """Add impressions; their labels may have arrived already."""
        for each in shown:
            self._labels.add_impression(each)
        self.observe_items(shown)

    def observe_items(self, shown: list[ShownImpression]) -> None:
        """Add to the recent items."""
        for each in shown:
            self._recent_items[each.impression.item_id] = None
        while len(self._recent_items) > RECENT_ITEMS:
            self._recent_items.pop(next(iter(self._recent_items)))

    def settle(self, until_ms: int) -> None:
        """Settle impressions whose label window had closed by ``until_ms``."""
        self._labels.settle(until_ms)

    def label_figures(self, serving: str | None) -> LabelFigures:
        """Return the figures that rest on labels; ``serving`` is the serving version."""
        return self._labels.figures(serving)

    def observe_worker(self, progress: WorkerProgress) -> None:
        """Set the stream worker's lag."""
        self._lag = {self._sources.worker_group: progress.lag} if progress.ends else {}

    def observe_broker(self, is_connected: bool) -> None:
        """Set whether the broker is connected."""
        self._up["labels"] = is_connected

    def poll_triton(self) -> None:
        """Add the increase of every Triton's counters; a failed poll is retried."""
        self._servers.poll()
        self._up["triton"] = self._servers.is_any_up
        cells = self._servers.totals.labelled(metrics.FEATURE_BIN)
        self._drift.observe(cells, time.monotonic())

    def update(self) -> None:
        """Compute the figures that ``collect`` returns."""
        serving = serving_version(self._sources.repository)
        totals = self._servers.totals
        bundles = {v: self._bundles.of(v) for v in served_versions(totals)}
        self._existing.clear()
        self._existing.update(self._bundles.versions(), bundles, filter(None, [serving]))
        references = {v: b.reference for v, b in bundles.items() if b.reference}
        checks = self._sources.feature_check
        now_ms, labels = round(time.time() * 1000), self.label_figures(serving)
        until_ms = labels.complete_until_ms
        view = View(
            window_s=self._config.window_s,
            label_window_s=self._sources.label_window_s,
            window_end_ms=labels.newest_ms,
            qualities=labels.qualities,
            provisional=labels.provisional,
            differences=labels.differences,
            sample_ratios=labels.sample_ratios,
            totals=totals,
            servers=self._servers.servers(references),
            flops=flops(totals, {v: b.cost for v, b in bundles.items()}),
            prices=_prices(self._config),
            feature_drifts=tuple(self._drift.feature_drifts(references)),
            serving_version=serving,
            bundles=self._bundles.newest(serving),
            source_up=self._up,
            consumer_lag=self._lag,
            undecodable_labels=labels.undecodable,
            labels_behind_s=(now_ms - until_ms) / 1000 if until_ms else nan,
            feature_check=read_json(checks, FeatureCheck),
            served_check=read_json(checks.with_name(SERVED_CHECK_FILE), ServedReport),
            # From 0 on, so that the first crash is an increase.
            crashes=dict.fromkeys(bundles, 0) | read_crashes(self._sources.repository),
            refresh=read_json(self._sources.bundles_dir / STATUS_FILE, RefreshStatus),
            now_ms=now_ms,
        )
        self._families = families(view)


def _prices(config: MonitorConfig) -> MachinePrices:
    return MachinePrices(
        currency=config.currency,
        core=config.price_per_core_hour,
        gpu=config.price_per_gpu_hour,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    serving: str | None = None


def serving_version(repository: Path) -> str | None:
    """Return the promoted version; None before the first promotion."""
    report = read_json(repository / "serving.json", _Serving)
    return report.serving if report else None
