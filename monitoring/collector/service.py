"""The monitor as a process: its sources followed, its endpoint served, until it is stopped.

In: where the monitor looks. Out: ``http://host:port/metrics``. One thread follows labels,
impressions, the worker and Triton; a second probes, if that is asked for.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from prometheus_client import CollectorRegistry, start_http_server

from srp4ctr.monitoring.collector.consumer_lag import QuietSpell, WorkerWatch
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources
from srp4ctr.monitoring.collector.impression_reader import ImpressionReader
from srp4ctr.monitoring.collector.label_reader import LabelReader
from srp4ctr.monitoring.collector.probe import Probe
from srp4ctr.monitoring.config import MonitorConfig

LOG = logging.getLogger(__name__)
IDLE_S = 0.2  # between empty reads; the embedded broker answers an empty fetch at once
RETRY_S = 2.0
WATCH_S = 2.0  # between two questions after the worker; one takes some milliseconds
Probing = Callable[[Callable[[], Sequence[str]], CollectorRegistry], Probe]
"""Which items there are, and where to show it → a probe."""


def run_monitor(
    sources: MonitorSources,
    config: MonitorConfig,
    stop: threading.Event,
    probing: Probing | None = None,
) -> None:
    """Serve the metrics until ``stop`` is set; a source that is away is waited for.

    ``probing`` makes the probe, where ``config`` asks for one. Raises ``ValueError`` if
    ``config.port`` is taken.
    """
    monitor = Monitor(sources, config)
    try:
        server, _ = start_http_server(config.port, config.host, monitor.registry)
    except OSError as error:
        where = f"{config.host}:{config.port} (monitoring.port)"
        raise ValueError(f"cannot listen on {where}: {error.strerror}") from error
    poller = _Poller(monitor, config.poll_interval_s)
    prober = None
    if probing and config.probe_interval_s:
        probe = probing(lambda: monitor.recent_items, monitor.registry)
        turns = (config.probe_interval_s, stop)
        prober = threading.Thread(target=probe.run, args=turns, name="probe")
        prober.start()
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
        stop.set()
        if prober:
            prober.join()
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


class Settlement:
    """Lets the clock settle impressions while the worker has nothing left to label."""

    def __init__(self, monitor: Monitor, watch: WorkerWatch) -> None:
        self._monitor, self._watch, self._due = monitor, watch, 0.0
        self._spell = QuietSpell()

    def turn(self, *, is_quiet: bool) -> None:
        """Read the worker's progress once in a while; settle what is due if it is quiet."""
        if not is_quiet:
            self._spell.interrupt()
        if time.monotonic() < self._due:
            return
        asked_ms, progress = round(time.time() * 1000), self._watch.progress()
        self._monitor.hear_worker(progress)
        if is_quiet:
            until_ms = self._spell.observe(progress, asked_ms)
            if until_ms is not None:
                self._monitor.settle(until_ms)
        self._due = time.monotonic() + WATCH_S

    def close(self) -> None:
        """Close the connection to the broker."""
        self._watch.close()


def _follow_labels(
    monitor: Monitor, poller: _Poller, sources: MonitorSources, stop: threading.Event
) -> None:
    """Read labels until ``stop`` is set; raises ``ConnectionError`` if the broker fails.

    Whatever was folded before is folded again by the next reader, to no effect.
    """
    with ExitStack() as opened:
        reader = opened.enter_context(closing(LabelReader(sources.kafka)))
        since_ms = round(time.time() * 1000) - monitor.remembers_ms
        shown = opened.enter_context(closing(ImpressionReader(sources.kafka, since_ms)))
        watch = WorkerWatch(sources.kafka, sources.worker_group)
        settler = opened.enter_context(closing(Settlement(monitor, watch)))
        while not stop.is_set():
            batch, impressions = reader.read(), shown.read()
            monitor.fold_labels(batch)
            monitor.fold_impressions(impressions)
            monitor.hear_labels(reader.is_connected)
            settler.turn(is_quiet=reader.is_connected and not batch.labels)
            poller.turn()
            if not batch.labels and not impressions:
                stop.wait(IDLE_S)
