"""Settings → the monitor: run it with its freshness probe, and write its report.

RankClient and Kafka's producer are imported only for the probe.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.features.consistency.report import REPORT_FILE
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.monitoring.collector.probe import Probe
from srp4ctr.monitoring.collector.service import ProbeFactory, run_monitor
from srp4ctr.monitoring.dashboards import load_boards
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web.page import report
from srp4ctr.monitoring.web.period import Period, parse_period
from srp4ctr.ops.certificate_watch import watching
from srp4ctr.processes import ended_by_sigterm
from srp4ctr.retries import retry_during_outage
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.events.schema import Behavior
from srp4ctr.training.export import bundle_store
from srp4ctr.training.refresh.reports import STATUS_FILE
from srp4ctr.triton_repo.config import TlsConfig
from srp4ctr.triton_repo.model_names import RANK_CLICKS

LOG = logging.getLogger(__name__)
SNAPSHOT_FILE = "monitor.snapshot"
SHARED_FOLDER = "monitors"
READY_S = 1.0
_UPDATE_S = 60.0


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve the monitor's metrics until SIGTERM or Ctrl-C; ``say`` prints its address.

    Waits until the broker answers. Raises ``MistakeError`` if the port is taken.
    """
    with ended_by_sigterm():  # otherwise a reader would create the topics
        retry_during_outage(lambda: ensure_topics(settings.kafka), say)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if store := bundle_store.store_of(settings.training):
        threading.Thread(target=follow_bundles, args=(store, stop), daemon=True).start()
    monitoring = settings.monitoring
    say(f"metrics: http://{monitoring.host}:{monitoring.port}/metrics  (Ctrl-C stops)")
    with watching(settings) as certificates:
        sources, probes = sources_of(settings), probe_factory(settings)
        run_monitor(sources, monitoring, stop, probes, [certificates])


def follow_bundles(store: bundle_store.BundleStore, stop: threading.Event) -> None:
    """Copy cards, reports and the refresh's status as they come, until ``stop`` is set."""
    while not stop.is_set():
        try:
            store.update(STATUS_FILE)
        except (Srp4ctrError, OSError) as error:
            LOG.warning("figures of new bundles are missing: %s", error)
        stop.wait(_UPDATE_S)


def write_report(settings: Settings, since: str, until: str | None, output: Path) -> Period:
    """Write all dashboards to HTML file ``output``; return the period that they cover.

    Raises ``MistakeError`` if the period is invalid, ``OutageError`` if Prometheus is down
    or has no data of it.
    """
    period = parse_period(since, until, time.time())
    prometheus = Prometheus(settings.monitoring.prometheus_url)
    window = f"last_over_time(srp4ctr_window_seconds[{period.length_s:.0f}s])"
    if not prometheus.at(window, period.end_s):
        raise OutageError(
            f"{prometheus.url} has nothing of the monitor from {period}: does `srp4ctr "
            "monitor run` run, and does that Prometheus scrape it? For an earlier start: "
            "--since 7d"
        )
    text = report(prometheus, period, settings.monitoring.currency, load_boards())
    output.write_text(text, encoding="utf-8")
    return period


def sources_of(settings: Settings) -> MonitorSources:
    """Return the monitor's sources by ``settings``."""
    data_dir, monitoring = Path(settings.embedded.data_dir), settings.monitoring
    return MonitorSources(
        kafka=settings.kafka,
        triton_metrics=settings.triton.metrics_pages(),
        has_model=model_readiness(settings.triton.tls),
        repository=Path(settings.triton.repository),
        bundles_dir=Path(settings.training.bundles_dir),
        label_window_s=settings.streams.label_window_s,
        worker_group=settings.streams.group_id,
        feature_check=Path(settings.features.log_dir) / REPORT_FILE,
        snapshot=Path(monitoring.snapshot_file or data_dir / SNAPSHOT_FILE),
        shared_folder=Path(monitoring.shared_folder or data_dir / SHARED_FOLDER),
    )


def model_readiness(tls: TlsConfig) -> Callable[[str], bool | None]:
    """Return a function of a server's address: whether ``rank_clicks`` is ready there.

    It returns None where the server does not say so, also to a monitor without access.
    """
    from tritonclient.utils import InferenceServerException

    from srp4ctr.client.channel import connect

    client_of = cache(partial(connect, tls=tls))

    def has_model(address: str) -> bool | None:
        try:
            client = client_of(address)
            return bool(client.is_model_ready(RANK_CLICKS, client_timeout=READY_S))
        except (InferenceServerException, MistakeError):
            return None

    return has_model


def probe_factory(settings: Settings) -> ProbeFactory:
    """Return the factory of probes of the stack in ``settings``.

    The factory raises ``MistakeError`` if tritonclient is missing.
    """

    def make(items: Callable[[], Sequence[str]], registry: CollectorRegistry) -> Probe:
        from srp4ctr.streams.broker.producer import EventPublisher

        try:
            from srp4ctr.client.rank_client import RankClient
        except ImportError as error:
            raise MistakeError(
                f"monitoring.probe_interval_s needs {error.name}, which is missing: "
                "pip install 'srp4ctr[serving]', or set it to 0"
            ) from error

        client = RankClient(settings.triton.grpc, tls=settings.triton.tls)

        @cache  # made by the first probe: without a broker only that probe fails
        def publisher() -> EventPublisher:
            return EventPublisher(settings.kafka)

        def publish(user: str, item: str) -> None:
            now_ms = time.time_ns() // 1_000_000
            view = Behavior(
                event_id=f"{user}-{now_ms}",
                user_id=user,
                item_id=item,
                action="view",  # a click would move an item's counters
                occurred_at=now_ms,
            )
            publisher().publish(view)
            publisher().flush(5.0)

        return Probe(publish, client.rank, items, registry)

    return make
