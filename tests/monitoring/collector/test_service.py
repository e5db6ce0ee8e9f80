"""The running monitor, with a real broker and without one."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from urllib.request import urlopen

import pytest
from kafka import KafkaConsumer, KafkaProducer, errors
from prometheus_client import REGISTRY, CollectorRegistry

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.collector import topic_readers
from srp4ctr.monitoring.collector.consumer_lag import WorkerProgressReader
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.monitoring.collector.probe import Probe
from srp4ctr.monitoring.collector.service import run_monitor
from srp4ctr.monitoring.collector.snapshot import LabelPosition
from srp4ctr.monitoring.collector.topic_readers import (
    ImpressionReader,
    LabelReader,
    ReceivedLabel,
    broker_errors,
)
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, Behavior
from srp4ctr.streams.state.label_join import ImpressionLabel, encode_label
from tests.monitoring.conftest import a_label, an_impression


def test_a_port_that_is_taken_is_an_error_that_names_the_setting(
    sources: MonitorSources, triton_url: str
) -> None:
    taken = int(triton_url.rpartition(":")[2].removesuffix("/metrics"))
    with pytest.raises(MistakeError, match=r"monitoring\.port"):
        run_monitor(sources, MonitorConfig(port=taken), threading.Event())


def test_without_a_broker_the_monitor_still_serves_and_stops(
    sources: MonitorSources,
) -> None:
    with ports.reserved_ports(1) as (port,):
        pass
    wanted = 'srp4ctr_source_up{source="labels"} 0.0'
    url = f"http://127.0.0.1:{port}/metrics"
    before = retries("read_topics")
    with running(sources, port):
        assert wait_for(url, wanted)
        deadline = time.monotonic() + 30
        while retries("read_topics") < before + 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        (shown,) = [
            metric for metric in read_metrics(url) if metric.name == "srp4ctr_retries"
        ]
    counts = {sample.labels["operation"]: sample.value for sample in shown.samples}
    assert counts.keys() >= {"read_topics", "read_consumer_lag", "poll_triton"}
    assert counts["read_topics"] >= before + 2


def retries(operation: str) -> float:
    labels = {"operation": operation}
    return REGISTRY.get_sample_value("srp4ctr_retries_total", labels) or 0.0


def test_a_bug_of_the_probe_ends_the_monitor_with_its_trace(
    sources: MonitorSources,
) -> None:
    def rank(user: str, items: Sequence[str]) -> NoReturn:
        raise KeyError("a typing mistake")

    def a_probe(_: object, registry: CollectorRegistry) -> Probe:
        return Probe(lambda user, item: None, rank, lambda: ["i1", "i2"], registry)

    with ports.reserved_ports(1) as (port,):
        pass
    config = MonitorConfig(port=port, probe_interval_s=0.01)
    with pytest.raises(KeyError, match="a typing mistake"):
        run_monitor(sources, config, threading.Event(), a_probe)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (errors.KafkaTimeoutError(), OutageError),
        (errors.KafkaConnectionError(), OutageError),
        (errors.CoordinatorNotAvailableError(), OutageError),
        (errors.UnknownBrokerIdError(), OutageError),
        (errors.UnknownError(), OutageError),
        (errors.BrokerNotAvailableError(), OutageError),
        (errors.CorruptRecordError(), OutageError),
        (errors.TopicAuthorizationFailedError(), MistakeError),
        (errors.SaslAuthenticationFailedError(), MistakeError),
        (errors.IllegalStateError(), errors.IllegalStateError),
    ],
)
def test_only_what_may_pass_is_an_outage(
    error: Exception, becomes: type[Exception]
) -> None:
    with pytest.raises(Exception) as raised, broker_errors("impression-labels"):  # noqa: PT011
        raise error
    assert type(raised.value) is becomes


@contextmanager
def running(sources: MonitorSources, port: int) -> Iterator[None]:
    """Run the monitor in a thread, and check that it stops."""
    stop = threading.Event()
    config = MonitorConfig(port=port, poll_interval_s=0.1)
    thread = threading.Thread(target=run_monitor, args=(sources, config, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """An embedded broker with the project's topics."""
    with ports.reserved_ports(1) as (port,):
        running = broker.start_broker(tmp_path, port, tied=True)
    address = f"127.0.0.1:{port}"
    ensure_topics(KafkaConfig(bootstrap=address))
    yield address
    processes.stop(running, tmp_path)


def publish(bootstrap: str, *payloads: bytes, topic: str = LABELS_TOPIC) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for payload in payloads:
        producer.send(topic, key=b"u1", value=payload)
    producer.flush()
    producer.close()


@pytest.mark.stack
def test_every_label_of_the_topic_is_read_from_its_start(bootstrap: str) -> None:
    labels = [a_label(f"i{number}") for number in range(2000)]
    publish(bootstrap, *map(encode_label, labels), b"not a label", b"\xff")
    reader = LabelReader(KafkaConfig(bootstrap=bootstrap))
    found: list[ImpressionLabel] = []
    undecodable = 0
    deadline = time.monotonic() + 30
    while len(found) + undecodable < 2002 and time.monotonic() < deadline:
        batch = reader.read()
        found += [label.label for label in batch.labels]
        undecodable += batch.undecodable
    reader.close()
    assert found == labels
    assert undecodable == 2


@pytest.mark.stack
def test_a_reader_that_gets_no_unread_records_for_long_connects_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_readers, "MAX_SILENCE_S", 2.0)
    labels = [a_label(f"i{number}") for number in range(100)]
    with ports.reserved_ports(1) as (port,):
        server = broker.start_broker(tmp_path, port, tied=True)
    kafka = KafkaConfig(bootstrap=f"127.0.0.1:{port}")
    try:
        ensure_topics(kafka)
        publish(kafka.bootstrap, *map(encode_label, labels))
        with closing(LabelReader(kafka, lambda _: True)) as reader:
            offsets = dict.fromkeys(reader.partitions(), 0)
            reader.start(LabelPosition(offsets=offsets), since_ms=0)
            os.killpg(server.pid, signal.SIGSTOP)
            found, position, reason = read_until_it_fails(reader)
        assert "have unread records, but gave none for 2 s" in reason
        os.killpg(server.pid, signal.SIGCONT)
        monkeypatch.undo()
        with closing(LabelReader(kafka)) as reader:
            reader.start(position, since_ms=0)
            while len(found) < len(labels):
                found += reader.read().labels
        assert [each.label for each in found] == labels
    finally:
        os.killpg(server.pid, signal.SIGCONT)
        processes.stop(server, tmp_path)


@pytest.mark.stack
def test_a_reader_whose_fetches_are_not_answered_is_not_current(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last fetch said that there is no more; the broker knows better."""
    monkeypatch.setattr(topic_readers, "MAX_SILENCE_S", 2.0)
    with closing(LabelReader(KafkaConfig(bootstrap=bootstrap))) as reader:
        while not reader.read().position.complete_until_ms:
            time.sleep(0.01)
        stop_fetches(reader, monkeypatch)
        published_ms = round(time.time() * 1000)
        publish(bootstrap, encode_label(a_label("i1")))
        found, position, reason = read_until_it_fails(reader)
    assert not found
    assert position.complete_until_ms <= published_ms
    assert "have unread records, but gave none for 2 s" in reason


@pytest.mark.stack
def test_impressions_whose_fetches_are_not_answered_are_read_again(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_readers, "MAX_SILENCE_S", 2.0)
    with closing(ImpressionReader(KafkaConfig(bootstrap=bootstrap), 0)) as reader:
        stop_fetches(reader, monkeypatch)
        shown = encode(an_impression("i1", occurred_at=round(time.time() * 1000)))
        publish(bootstrap, shown, topic=BEHAVIOR_EVENTS_TOPIC)
        with pytest.raises(OutageError, match=r"behavior-events: .* gave none for 2 s"):
            read_nothing(reader)


def read_nothing(reader: ImpressionReader) -> None:
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        assert not reader.read()
        time.sleep(0.01)


def stop_fetches(
    reader: LabelReader | ImpressionReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Send no fetch any more; return when those that were sent are answered."""
    answered_s = time.monotonic() + 2.0
    while time.monotonic() < answered_s:
        reader.read()
    monkeypatch.setattr(reader._consumer._fetcher, "send_fetches", lambda: [])
    answered_s = time.monotonic() + 2.0
    while time.monotonic() < answered_s:
        reader.read()


def read_until_it_fails(
    reader: LabelReader,
) -> tuple[list[ReceivedLabel], LabelPosition, str]:
    """Return what was read, the position after it, and why no more can be read."""
    first = reader.read()
    found, position = list(first.labels), first.position
    deadline = time.monotonic() + 25  # the client ends a request after 30 s
    while time.monotonic() < deadline:
        try:
            batch = reader.read()
        except OutageError as error:
            return found, position, str(error)
        found += batch.labels
        position = batch.position
        time.sleep(0.01)
    raise AssertionError("the reader went on")


@pytest.mark.stack
def test_impressions_are_read_from_when_the_newest_windows_began(bootstrap: str) -> None:
    began_ms = round(time.time() * 1000)
    publish(
        bootstrap,
        encode(an_impression("i1", occurred_at=began_ms)),
        encode(
            Behavior(
                event_id="b",
                user_id="u1",
                item_id="i1",
                occurred_at=began_ms,
                action="view",
            )
        ),
        b'{"type":"impression"',
        encode(an_impression("i2", occurred_at=began_ms)),
        topic=BEHAVIOR_EVENTS_TOPIC,
    )
    kafka = KafkaConfig(bootstrap=bootstrap)
    found: dict[int, set[str]] = {}
    for since_ms in (0, began_ms - 1000, began_ms + 600_000):
        reader = ImpressionReader(kafka, since_ms)
        deadline, items = time.monotonic() + 5, set[str]()
        while len(items) < 2 and time.monotonic() < deadline:
            items |= {each.impression.item_id for each in reader.read()}
        reader.close()
        found[since_ms] = items
    assert [*found.values()] == [{"i1", "i2"}, {"i1", "i2"}, set()]


@pytest.mark.stack
def test_the_running_monitor_serves_what_is_published(
    sources: MonitorSources, bootstrap: str
) -> None:
    publish(bootstrap, encode_label(a_label("i1")))
    with ports.reserved_ports(1) as (port,):
        pass
    where = replace(sources, kafka=KafkaConfig(bootstrap=bootstrap))
    wanted = 'srp4ctr_matured_impressions{model_version="v7"} 1.0'
    with running(where, port):
        assert wait_for(f"http://127.0.0.1:{port}/metrics", wanted)


@contextmanager
def a_worker(bootstrap: str, group: str) -> Iterator[None]:
    """A member of the worker's group that commits all events at once."""
    consumer = KafkaConsumer(
        BEHAVIOR_EVENTS_TOPIC,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    deadline = time.monotonic() + 20
    while not consumer.poll(timeout_ms=100) and time.monotonic() < deadline:
        pass
    consumer.commit()
    yield
    consumer.close(autocommit=False)


@pytest.mark.stack
def test_only_a_running_worker_that_has_read_everything_is_caught_up(
    bootstrap: str,
) -> None:
    publish(bootstrap, b"{}", topic=BEHAVIOR_EVENTS_TOPIC)
    reader = WorkerProgressReader(KafkaConfig(bootstrap=bootstrap), "workers")
    assert not reader.read().is_caught_up
    with a_worker(bootstrap, "workers"):
        assert reader.read().is_caught_up
        publish(bootstrap, b"{}", topic=BEHAVIOR_EVENTS_TOPIC)
        assert not reader.read().is_caught_up
    assert not reader.read().is_running
    reader.close()


@pytest.mark.stack
def test_the_clock_settles_a_click_only_while_a_worker_is_caught_up(
    sources: MonitorSources, bootstrap: str
) -> None:
    publish(bootstrap, b"{}", topic=BEHAVIOR_EVENTS_TOPIC)
    publish(bootstrap, encode_label(a_label("i1", clicked=True)))
    with ports.reserved_ports(1) as (port,):
        pass
    where = replace(sources, kafka=KafkaConfig(bootstrap=bootstrap))
    url = f"http://127.0.0.1:{port}/metrics"
    wanted = 'srp4ctr_matured_impressions{model_version="v7"} 1.0'
    with running(where, port):
        assert not wait_for(url, wanted, timeout_s=7)
        with a_worker(bootstrap, where.worker_group):
            assert wait_for(url, wanted)


def wait_for(url: str, wanted: str, timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=1) as answer:
                if wanted in answer.read().decode().splitlines():
                    return True
        except OSError:
            pass
        time.sleep(0.1)
    return False
