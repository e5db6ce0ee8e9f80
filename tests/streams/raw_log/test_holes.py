"""What Kafka drops before a reader has come to it: a hole that is counted and reported."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from srp4ctr.embedded import broker
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency.check import check_features
from srp4ctr.ops.doctor import kafka as broker_checks
from srp4ctr.ops.doctor import raw_log as log_checks
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.worker_clients import SKIPPED
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import (
    covered_offsets,
    partitions_of,
    skipped_offsets,
)
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from srp4ctr.streams.worker.replay import ReplaySource
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from tests.builders import NOON_MS, a_behavior, a_profile
from tests.streams.logs import log, logged
from tests.streams.memory_sink import MemorySink
from tests.streams.worker.rebuilds import rebuild
from tests.streams.workers import NO_LOG, publish, run_until_committed, running

pytestmark = pytest.mark.kafka


def publish_some(kafka: KafkaConfig, number: int, start: int = 0) -> None:
    events = [
        a_behavior(at_ms=NOON_MS + each, user_id=f"u{each}")
        for each in range(start, start + number)
    ]
    publish(kafka, events, backfill=True)


def drop(kafka: KafkaConfig) -> None:
    broker.delete_records(kafka.bootstrap, [BEHAVIOR_EVENTS_TOPIC])


def log_with_a_hole(
    kafka: KafkaConfig, config: StreamConfig, folder: Path, start: int = 0
) -> None:
    """Log ten records, let Kafka drop the next ten, and log ten more."""
    publish_some(kafka, 10)
    log(kafka, config, folder, start + 10)
    publish_some(kafka, 10, start=10)
    drop(kafka)
    publish_some(kafka, 10, start=20)
    log(kafka, config, folder, start + 30)


def counted(group: str) -> float:
    return float(SKIPPED.labels(group)._value.get())


def test_a_hole_in_the_log_is_counted_and_its_past_is_not_whole(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = counted(config.log_group_id)
    log_with_a_hole(kafka, config, tmp_path)
    assert len(logged(tmp_path)) == 20
    assert sum(skipped_offsets(tmp_path, BEHAVIOR_EVENTS_TOPIC).values()) == 10
    assert counted(config.log_group_id) - before == 10
    assert "were dropped by Kafka before" in caplog.text
    for partition in partitions_of(tmp_path, BEHAVIOR_EVENTS_TOPIC):
        assert covered_offsets(tmp_path, BEHAVIOR_EVENTS_TOPIC, partition)[0] > 0
    log_with_a_hole(kafka, config, tmp_path, start=30)  # it adds up
    assert sum(skipped_offsets(tmp_path, BEHAVIOR_EVENTS_TOPIC).values()) == 20


def test_a_rebuild_from_a_log_with_a_hole_says_so_and_keeps_attributes(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = MemorySink()
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    publish(kafka, [a_profile(user_id="u5", at_ms=NOON_MS, city="Oslo")], backfill=True)
    run_until_committed(kafka, config, sink, 11, tmp_path)
    drop(kafka)
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 21)
    caplog.clear()
    rebuild(kafka, sink, tmp_path)
    assert "Oslo" in sink.rows.users["u5"].attributes
    assert "rebuilds without 1 record" in caplog.text


def test_a_log_that_ends_before_kafka_begins_is_not_whole(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    publish_some(kafka, 10, start=10)
    drop(kafka)

    async def run() -> tuple[bool, int]:
        source = TopicPartition(BEHAVIOR_EVENTS_TOPIC, 0)
        async with ReplaySource.opened(kafka, tmp_path, source) as past:
            return past.is_whole, past.missing

    is_whole, missing = asyncio.run(run())
    assert not is_whole
    assert missing > 0


def test_a_worker_counts_and_logs_what_it_never_read(
    kafka: KafkaConfig, config: StreamConfig, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted(config.group_id)
    publish_some(kafka, 10)
    run_until_committed(kafka, config, MemorySink(), 10)
    publish_some(kafka, 10, start=10)
    drop(kafka)
    publish_some(kafka, 10, start=20)
    run_until_committed(kafka, config, sink := MemorySink(), 30)
    assert len(sink.rows.users) == 10
    assert counted(config.group_id) - before == 10
    assert "srp4ctr stream rebuild" in caplog.text


@pytest.mark.parametrize("kind", [SequenceWorker, EventLogWriter])
def test_records_that_are_dropped_while_a_reader_runs_are_noticed(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path, kind: type
) -> None:
    is_log = kind is EventLogWriter
    group = config.log_group_id if is_log else config.group_id
    before = counted(group)
    publish_some(kafka, 10)

    async def run() -> None:
        made = (
            EventLogWriter(kafka, config, tmp_path)
            if is_log
            else SequenceWorker(kafka, config, MemorySink(), NO_LOG)
        )
        async with running(made) as reader:
            await until(lambda: committed() >= 10)
            async with reader.group.lock:  # it is slow
                reader.group.consumer.pause(*reader.group.partitions)
                await asyncio.to_thread(publish_some, kafka, 10, 10)
                await asyncio.to_thread(drop, kafka)
                await asyncio.to_thread(publish_some, kafka, 10, 20)
                reader.group.consumer.resume(*reader.group.partitions)
            await until(lambda: committed() >= 30)

    with progress_of(kafka, group, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    assert counted(group) - before == 10


def test_features_check_and_doctor_report_a_hole(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    folder = tmp_path / "log"
    log_with_a_hole(kafka, config, folder)
    features = FeatureConfig(log_dir=str(folder))
    assert check_features(features, MemorySink(), config, {}).skipped_offsets == 10
    settings = Settings(kafka=kafka, streams=config, features=features)
    (found,) = log_checks.holes(settings)
    assert (found.state, "10 records" in found.found) == ("wrong", True)
    assert "features.known_lost_records = 10" in found.do
    for known, state in ((9, "wrong"), (10, "ok")):
        given = replace(features, known_lost_records=known)
        settings = Settings(kafka=kafka, streams=config, features=given)
        (found,) = log_checks.holes(settings)
        assert found.state == state


def test_doctor_reports_what_kafka_has_dropped_and_a_reader_has_not_read(
    kafka: KafkaConfig, config: StreamConfig
) -> None:
    settings = Settings(kafka=kafka, streams=config)
    publish_some(kafka, 10)
    run_until_committed(kafka, config, MemorySink(), 10)
    (found,) = broker_checks.unread(settings)
    assert found.state == "ok"
    publish_some(kafka, 10, start=10)
    drop(kafka)
    (found,) = broker_checks.unread(settings)
    assert (found.state, "10 records" in found.found) == ("wrong", True)
    assert config.group_id in found.found
