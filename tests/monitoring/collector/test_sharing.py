"""Monitors that share the partitions show the figures of one monitor that reads all."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, ports
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources
from srp4ctr.monitoring.collector.label_sums import LabelFigures, added
from srp4ctr.monitoring.collector.partition_files import SUMS, PartitionFiles
from srp4ctr.monitoring.collector.partition_share import FileLocks
from srp4ctr.monitoring.collector.service import run_monitor
from srp4ctr.monitoring.collector.topic_readers import (
    ReceivedLabel,
    ShownImpression,
)
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import item_key
from tests.monitoring.collector.label_topics import (
    a_broker,
    batches,
    figures,
    publish,
    same,
    some_labels,
    wait_until_current,
)
from tests.monitoring.conftest import MINUTE_MS, an_impression

REPLACED_S = 30.0
BEHIND = "srp4ctr_figures_behind_seconds"
NUM_PARTS = 3


def of_user(user_id: str) -> int:
    return item_key(user_id) % NUM_PARTS


def test_sums_of_partitions_add_up_to_those_of_one_monitor(
    sources: MonitorSources,
) -> None:
    labels = some_labels(3000)
    one = Monitor(sources, MonitorConfig())
    parts = [one.new_sums() for _ in range(NUM_PARTS)]
    whole = one.new_sums()
    for label in labels:
        part = of_user(label.user_id)
        received = ReceivedLabel(label=label, partition=part, published_ms=1)
        whole.add(received)
        parts[part].add(received)
    newest_ms = whole.quality.newest_ms
    for number in range(40):
        event = an_impression(f"new-{number}", user_id=f"u{number}", occurred_at=newest_ms)
        shown = ShownImpression(impression=event, known_ms=newest_ms)
        whole.add_impression(shown)
        parts[of_user(event.user_id)].add_impression(shown)
    for each in parts:
        each.quality.end_window(newest_ms)
    found = added(parts, [each.open.counts() for each in parts], "v7")
    expected = whole.figures("v7")
    assert sum(quality.impressions for quality in expected.qualities) > 500
    assert expected.differences
    assert numbers_of(found) == pytest.approx(numbers_of(expected), rel=1e-9, nan_ok=True)


def numbers_of(figures: LabelFigures) -> list[float]:
    found: list[float] = []

    def walk(value: Any) -> None:
        if isinstance(value, int | float):
            found.append(float(value))
        elif isinstance(value, tuple | list):
            for each in value:
                walk(each)
        elif isinstance(value, dict):
            walk([value[key] for key in sorted(value)])
        elif hasattr(value, "__dataclass_fields__"):
            walk([getattr(value, name) for name in value.__dataclass_fields__])

    walk(figures)
    return found


def test_what_an_earlier_owner_writes_late_does_not_count(
    sources: MonitorSources, tmp_path: Path
) -> None:
    monitor = Monitor(sources, MonitorConfig())
    files = PartitionFiles(tmp_path / "shared", monitor.windows)
    first = files.claim(3)
    files.write(3, first, SUMS, monitor.snapshot())
    second = files.claim(3)
    assert files.written(3, SUMS) == files.path(3, first, SUMS)  # until the new one writes
    for batch in batches(some_labels(100)):
        monitor.add_labels(batch)
    files.write(3, second, SUMS, monitor.snapshot())
    files.write(3, first, SUMS, monitor.snapshot())  # it was paused in between
    assert second > first
    assert files.written(3, SUMS) == files.path(3, second, SUMS)
    assert files.claim(3) > second


def wait_for(is_so: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.05)
    return False


def test_locks_share_partitions_fairly_and_those_of_a_closed_monitor_are_free(
    tmp_path: Path,
) -> None:
    one, two, three = shares = [FileLocks(tmp_path / "locks", lambda: 7) for _ in range(3)]
    one.start()
    assert wait_for(lambda: one.owned() == set(range(7)))
    two.start()
    three.start()
    assert wait_for(lambda: sorted(len(share.owned()) for share in shares) == [2, 2, 3])
    assert sorted([*one.owned(), *two.owned(), *three.owned()]) == list(range(7))
    assert 0 in one.owned()  # the monitor that adds up stays
    one.close()
    assert not one.owned()
    assert wait_for(lambda: len(two.owned() | three.owned()) == 7)
    two.close()
    assert wait_for(lambda: three.owned() == set(range(7)))
    three.close()


# With a broker.


class AMonitor:
    """A monitor's process, of those that share by ``share_by``."""

    def __init__(self, sources: MonitorSources, share_by: Any) -> None:
        with ports.reserved_ports(1) as (port,):
            self._config = MonitorConfig(
                port=port,
                poll_interval_s=0.2,
                snapshot_interval_s=3.0,
                share_by=share_by,
            )
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.process: BaseProcess = multiprocessing.get_context("spawn").Process(
            target=run, args=(sources, self._config), daemon=True
        )
        self.process.start()

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process.pid
        os.kill(self.process.pid, number)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join(20)

    def names(self) -> set[str]:
        """Return the families with a sample; none while it does not answer."""
        try:
            return {metric.name for metric in read_metrics(self.url) if metric.samples}
        except (OSError, ValueError):
            return set()

    def is_first(self) -> bool:
        """Return whether it shows the figures of all."""
        return BEHIND in self.names()


def run(sources: MonitorSources, config: MonitorConfig) -> None:
    run_monitor(sources, config, threading.Event())


@contextmanager
def two_monitors(sources: MonitorSources, share_by: str) -> Iterator[list[AMonitor]]:
    """Yield two monitors; the first one shows the figures of both."""
    where = replace(sources, shared_folder=sources.repository / "monitors")
    both = [AMonitor(where, share_by) for _ in range(2)]
    try:
        ready = 120.0  # two processes start, on a machine that may be busy
        assert wait_for(lambda: any(impressions_of(each.url) > 0 for each in both), ready)
        yield sorted(both, key=lambda each: not each.is_first())
    finally:
        for each in both:
            each.end()


@contextmanager
def one_monitor(sources: MonitorSources) -> Iterator[str]:
    """Run a monitor that reads all partitions, in a thread."""
    stop = threading.Event()
    with ports.reserved_ports(1) as (port,):
        config = MonitorConfig(port=port, poll_interval_s=0.2)
    thread = threading.Thread(target=run_monitor, args=(sources, config, stop))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        stop.set()
        thread.join(20)


def impressions_of(url: str) -> float:
    """Return how many impressions the figures rest on; -1 while there are none."""
    try:
        families = {metric.name: metric.samples for metric in read_metrics(url)}
    except (OSError, ValueError):
        return -1.0
    samples = families.get("srp4ctr_matured_impressions") or []
    return sum(sample.value for sample in samples) if samples else -1.0


def is_replaced(sources: MonitorSources, share_by: str) -> None:
    """Check that a killed monitor, each of the two, is replaced by the other one."""
    now_ms = round(time.time() * 1000)
    labels = some_labels(1800, since_ms=now_ms - 150 * MINUTE_MS)
    kafka = sources.kafka
    publish(kafka, labels[:900])
    with one_monitor(sources) as url, two_monitors(sources, share_by) as (first, second):
        wait_until_current(first.url, time.time())
        wait_until_current(url, time.time())
        assert wait_for(lambda: figures(first.url) == same(figures(url)))
        assert second.names().isdisjoint(figure_names(url))
        least = impressions_of(first.url)
        killed_s = time.time()
        first.end()
        seen = list[float]()

        def has_replaced() -> bool:
            if (found := impressions_of(second.url)) >= 0:
                seen.append(found)
            return bool(seen) and second.is_first()

        assert wait_for(has_replaced, REPLACED_S)
        wait_until_current(second.url, killed_s)
        seconds = time.time() - killed_s
        assert set(seen) == {least}  # no partition was missing meanwhile, or there twice
        publish(kafka, labels[900:])
        wait_until_current(second.url, time.time())
        wait_until_current(url, time.time())
        wait_for(lambda: figures(second.url) == same(figures(url)), 20.0)
        assert figures(second.url) == same(figures(url))
        assert seconds < REPLACED_S


def figure_names(url: str) -> set[str]:
    return {
        metric.name
        for metric in read_metrics(url)
        if metric.samples and metric.name.startswith(("srp4ctr_click", "srp4ctr_matured"))
    }


@pytest.mark.stack
def test_a_killed_monitor_is_replaced_on_the_embedded_broker(
    sources: MonitorSources, tmp_path: Path
) -> None:
    with a_broker(tmp_path / "broker") as kafka:
        is_replaced(replace(sources, kafka=kafka), "locks")


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaConfig]:
    if missing := apache_kafka.missing_tools():
        pytest.skip(f"missing: {missing}")
    folder = tmp_path_factory.mktemp("kafka")
    with ports.reserved_ports(2) as (port, controller_port):
        running = apache_kafka.start(folder, port, controller_port, tied=True)
    try:
        config = KafkaConfig(bootstrap=f"127.0.0.1:{port}", partitions=4)
        ensure_topics(config)
        yield config
    finally:
        processes.stop(running, folder)


@pytest.mark.kafka
def test_a_killed_monitor_is_replaced_on_apache_kafka(
    sources: MonitorSources, apache: KafkaConfig
) -> None:
    is_replaced(replace(sources, kafka=apache), "group")


@pytest.mark.kafka
def test_a_paused_monitor_shows_nothing_stale_and_then_shares_again(
    sources: MonitorSources, apache: KafkaConfig
) -> None:
    now_ms = round(time.time() * 1000)
    labels = some_labels(1200, since_ms=now_ms - 150 * MINUTE_MS)
    where = replace(sources, kafka=apache)
    publish(apache, labels[:600])
    with two_monitors(where, "group") as (first, second):
        wait_until_current(first.url, time.time())
        first.signal(signal.SIGSTOP)
        publish(apache, labels[600:])
        paused_s = time.time()
        assert wait_for(second.is_first, REPLACED_S)
        wait_until_current(second.url, paused_s)
        assert wait_for(lambda: impressions_of(second.url) > 0)
        time.sleep(10)  # the second one has written its sums
        first.signal(signal.SIGCONT)
        continued_s = time.time()
        while time.time() < continued_s + 20:
            behind_s, now_s = behind_of(first.url), time.time()
            assert behind_s is None or now_s - behind_s > paused_s
            time.sleep(0.02)
        assert wait_for(lambda: first.is_first() != second.is_first())
        leading = first if first.is_first() else second
        wait_until_current(leading.url, time.time())
        with one_monitor(where) as url:
            wait_until_current(url, time.time())
            wait_for(lambda: figures(leading.url) == same(figures(url)), 20.0)
            assert figures(leading.url) == same(figures(url))


def behind_of(url: str) -> float | None:
    """Return how far the figures are behind; None while none are shown."""
    try:
        families = {metric.name: metric.samples for metric in read_metrics(url)}
    except (OSError, ValueError):
        return None
    samples = families.get(BEHIND) or []
    return samples[0].value if samples else None
