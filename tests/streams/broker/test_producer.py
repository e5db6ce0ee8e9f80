import gc
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from srp4ctr import processes
from srp4ctr.embedded.broker import start_broker
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.streams.broker import producer
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import BACKFILL_HEADER, encode
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.builders import NOON_MS, a_click, an_item


@pytest.mark.kafka
def test_a_backfilled_record_is_stamped_with_when_it_happened(kafka: KafkaConfig) -> None:
    with EventPublisher(kafka) as publisher:
        publisher.publish(a_click(at_ms=NOON_MS), backfill=True)
        publisher.publish_raw(encode(a_click(at_ms=NOON_MS)), backfill=True)
    records = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert [record.timestamp for record in records] == [NOON_MS, NOON_MS]
    assert {record.key for record in records} == {b"u1"}
    assert [record.headers for record in records] == [[(BACKFILL_HEADER, b"1")]] * 2


@pytest.mark.kafka
def test_what_happens_now_is_no_backfill(kafka: KafkaConfig) -> None:
    with EventPublisher(kafka) as publisher:
        publisher.publish(a_click(at_ms=NOON_MS))
    (record,) = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert list(record.headers) == []


@pytest.mark.kafka
def test_raw_events_go_where_they_belong(kafka: KafkaConfig) -> None:
    with EventPublisher(kafka) as publisher:
        publisher.publish_raw(encode(an_item()))
        publisher.publish_raw(b"no event", key=b"u7")
    (item,) = read_topic(kafka, "items")
    (rejectable,) = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert (item.key, rejectable.key, rejectable.value) == (b"i1", b"u7", b"no event")


@pytest.mark.kafka
def test_topics_are_created_once(kafka: KafkaConfig) -> None:
    assert ensure_topics(kafka) == []


@pytest.mark.parametrize("connect", [EventPublisher, ensure_topics])
def test_a_missing_broker_is_an_error_that_names_its_address(connect: type) -> None:
    with reserved_ports(1) as (port,):
        pass
    address = f"{HOST}:{port}"
    with pytest.raises(OutageError, match=f"no Kafka broker answers at {address}"):
        connect(KafkaConfig(bootstrap=address))


@pytest.mark.parametrize("address", ["kafka1", "kafka1:", ":9092", "a:1,b:port"])
def test_an_address_without_a_port_is_a_mistake(address: str) -> None:
    with pytest.raises(MistakeError, match="write HOST:PORT"):
        KafkaConfig(bootstrap=address)
    assert KafkaConfig(bootstrap="[::1]:9092, b:1").addresses == ["[::1]:9092", "b:1"]


@pytest.mark.kafka
def test_a_file_that_is_read_faster_than_the_broker_takes_it_waits(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would fill the memory, and its events would be sent too late."""
    monkeypatch.setattr(producer, "_MAX_WAITING", 100)
    with EventPublisher(kafka) as publisher:
        accumulator = publisher._producer._accumulator
        drain = accumulator.drain
        monkeypatch.setattr(accumulator, "drain", lambda *_: {})  # a broker that is slow
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(lambda: [*map(publisher.publish, [a_click()] * 300)])
            while publisher.published < 101:
                time.sleep(0.01)
            time.sleep(0.1)
            assert publisher.published == 101  # one that the oldest has to make room for
            monkeypatch.setattr(accumulator, "drain", drain)
            done.result()
    assert publisher.published == 300


@pytest.mark.kafka
def test_a_message_that_no_broker_would_take_is_a_mistake(kafka: KafkaConfig) -> None:
    with (
        pytest.raises(MistakeError, match="takes events up to 65536 bytes"),
        EventPublisher(kafka) as publisher,
    ):
        publisher.publish_raw(b"x" * 5_000_000, key=b"u1")


@pytest.mark.kafka
@pytest.mark.parametrize("pseudonyms", [None, Pseudonyms(b"k" * 32)])
def test_an_event_that_would_be_a_dead_letter_is_not_published(
    kafka: KafkaConfig, pseudonyms: Pseudonyms | None
) -> None:
    with EventPublisher(kafka, pseudonyms) as publisher:
        for event in (a_click(at_ms=NOON_MS // 1000), a_click(user_id=42)):
            with pytest.raises(MistakeError, match=r"time_in_seconds|invalid_field"):
                publisher.publish(event)
        publisher.publish(a_click())
    with pytest.raises(MistakeError, match="the publisher is closed"):
        publisher.publish(a_click())
    assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 1


@pytest.mark.kafka
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_publisher_that_was_made_before_a_fork_says_so_in_the_child(
    kafka: KafkaConfig,
) -> None:
    with EventPublisher(kafka) as publisher:
        child = os.fork()
        if not child:
            try:
                publisher.publish(a_click())
            except MistakeError as error:
                os._exit(0 if "make one in each process" in str(error) else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        publisher.publish(a_click())
    assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 1


@pytest.mark.kafka
def test_a_missing_topic_is_not_made_and_soon_reported(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded broker makes any topic: what it says of them is left out."""
    with EventPublisher(kafka, ack_timeout_s=1.0) as publisher:
        metadata = publisher._producer._metadata
        assert not metadata.config["allow_auto_create_topics"]
        with monkeypatch.context() as without_topics:
            without_topics.setattr(metadata, "partitions_for_topic", lambda _: None)
            with pytest.raises(OutageError, match="no such topic: `srp4ctr stack init`"):
                publisher.publish(a_click())
        publisher.publish(a_click())


@pytest.mark.kafka
def test_events_that_a_broker_does_not_acknowledge_are_an_outage(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    with reserved_ports(1) as (port,):
        broker = start_broker(tmp_path, port, tied=True)
    leaving = replace(kafka, bootstrap=f"{HOST}:{port}")
    publisher = EventPublisher(leaving)
    try:
        ensure_topics(leaving)
        publisher.publish(a_click())
        publisher.flush()
        os.kill(broker.pid, signal.SIGSTOP)
        while psutil.Process(broker.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        publisher.publish(a_click())
        with pytest.raises(OutageError, match="did not take an event"):
            publisher.flush(timeout_s=1)
        with pytest.raises(RuntimeError, match="the caller's"), publisher:
            raise RuntimeError("the caller's")
    finally:
        os.kill(broker.pid, signal.SIGCONT)
        processes.stop(broker, tmp_path)


@pytest.mark.kafka
def test_a_publisher_publishes_after_an_outage_longer_than_its_patience(
    kafka: KafkaConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # a record keeps what the error refers to
    with reserved_ports(1) as (port,):
        broker = start_broker(tmp_path, port, tied=True)
    away = replace(kafka, bootstrap=f"{HOST}:{port}")
    publisher = EventPublisher(away, ack_timeout_s=2.0)
    try:
        ensure_topics(away)
        publisher.publish(a_click())
        publisher.flush()
        os.kill(broker.pid, signal.SIGSTOP)
        publisher.publish(a_click())
        while not publisher._producer._sender._client.in_flight_request_count():
            time.sleep(0.01)
        os.kill(broker.pid, signal.SIGKILL)  # it has the request and will never answer
        with pytest.raises(OutageError, match="Expiring 1 record"):
            publisher.flush()
        processes.stop(broker, tmp_path)
        broker = start_broker(tmp_path, port, tied=True)
        ensure_topics(away)
        publisher.publish(a_click())
        publisher.flush()
    finally:
        publisher.disconnect()
        processes.stop(broker, tmp_path)
    del publisher
    gc.collect()  # kafka-python leaves a socket for each connection that was refused
