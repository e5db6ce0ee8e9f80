"""Settings → the monitor: run it with its freshness probe, and write its report.

RankClient and Kafka's producer are imported when there is something to probe; the report's
charts need matplotlib, which the image of ``monitor run`` does not have.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry

from srp4ctr.features.consistency.report import REPORT_FILE
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.monitoring.collector.probe import Answer, Probe
from srp4ctr.monitoring.collector.service import Probing, run_monitor
from srp4ctr.monitoring.report.build import build_contents
from srp4ctr.monitoring.report.headline import Headline, headline
from srp4ctr.monitoring.report.period import parse_period
from srp4ctr.monitoring.report.prometheus.prometheus_http import Prometheus
from srp4ctr.ops.waiting import ended_by_sigterm, until_there
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.events.schema import Behavior

_ACTION = "view"  # a behaviour: a click would move an item's counters


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve the monitor's metrics until SIGTERM or Ctrl-C; ``say`` gets its address.

    Waits for a broker that does not answer yet. Raises ``ValueError`` if the port is taken.
    """
    with ended_by_sigterm():  # a reader must not be what creates a topic
        until_there(lambda: ensure_topics(settings.kafka), say)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    monitoring = settings.monitoring
    say(f"metrics: http://{monitoring.host}:{monitoring.port}/metrics  (Ctrl-C stops)")
    run_monitor(sources_of(settings), monitoring, stop, probing(settings))


def write_report(
    settings: Settings, since: str, until: str | None, output: Path
) -> Headline:
    """Write the comparison of model versions to HTML file ``output``; return its headline.

    Raises ``ValueError`` where the times are no period, or Prometheus is away or empty.
    """
    from srp4ctr.monitoring.report.page import render_page

    now_s = time.time()
    period = parse_period(since, until, now_s)
    prometheus = Prometheus(settings.monitoring.prometheus_url)
    contents = build_contents(prometheus, period, settings.monitoring.expected_difference)
    output.write_text(render_page(contents, now_s), encoding="utf-8")
    return headline(contents)


def sources_of(settings: Settings) -> MonitorSources:
    """Return what the monitor of ``settings`` reads."""
    return MonitorSources(
        kafka=settings.kafka,
        triton_metrics_url=settings.triton.metrics_url,
        repository=Path(settings.triton.repository),
        bundles_dir=Path(settings.training.bundles_dir),
        label_window_s=settings.streams.label_window_s,
        worker_group=settings.streams.group_id,
        feature_check=Path(settings.features.log_dir) / REPORT_FILE,
    )


def probing(settings: Settings) -> Probing:
    """Return what makes a probe of the stack that ``settings`` name.

    Making it raises ``ValueError`` where tritonclient is missing.
    """

    def make(items: Callable[[], Sequence[str]], registry: CollectorRegistry) -> Probe:
        from srp4ctr.streams.broker.producer import EventPublisher

        try:
            from srp4ctr.client.rank_client import RankClient
        except ImportError as error:
            raise ValueError(
                f"monitoring.probe_interval_s asks Triton, and {error.name} is missing: "
                "pip install 'srp4ctr[serving]', or set it to 0"
            ) from error

        client = RankClient(settings.triton.grpc, tls=settings.triton.tls)

        @cache  # made by the first act: a broker that is away is a failed probe, no more
        def publisher() -> EventPublisher:
            return EventPublisher(settings.kafka)

        def act(user: str, item: str) -> None:
            publisher().publish(_view(user, item))
            publisher().flush(5.0)

        def ask(user: str, asked: Sequence[str]) -> Answer:
            return client.rank(user, asked)

        return Probe(act, ask, items, registry)

    return make


def _view(user: str, item: str) -> Behavior:
    now_ms = time.time_ns() // 1_000_000
    return Behavior(
        event_id=f"{user}-{now_ms}",
        user_id=user,
        item_id=item,
        action=_ACTION,
        occurred_at=now_ms,
    )
