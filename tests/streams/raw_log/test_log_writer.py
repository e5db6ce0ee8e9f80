import asyncio
import errno
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from aiokafka import TopicPartition

from srp4ctr.retries import RETRIES
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC
from srp4ctr.streams.raw_log import log_writer
from srp4ctr.streams.raw_log.compaction import merge_some
from srp4ctr.streams.raw_log.log_files import files_of
from srp4ctr.streams.raw_log.log_tables import OffsetRange, Row, write_range
from srp4ctr.streams.raw_log.log_writer import MERGED, EventLogWriter
from tests.builders import NOON_MS, a_behavior, an_item
from tests.streams.logs import log, logged

pytestmark = pytest.mark.kafka


def publish_some(kafka: KafkaConfig, number: int, start: int = 0) -> None:
    with EventPublisher(kafka) as publisher:
        for each in range(start, start + number):
            event = a_behavior(at_ms=NOON_MS + each, user_id=f"u{each}")
            publisher.publish(event, backfill=True)


def test_each_event_is_logged_once_under_the_date_it_became_known(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 20)
    with EventPublisher(kafka) as publisher:
        publisher.publish(an_item(genre=["war"]), backfill=True)
        publisher.publish_raw(b"not an event", key=b"u1")
    log(kafka, config, tmp_path / "log", 21)
    assert len(logged(tmp_path / "log")) == 20
    (items,) = (tmp_path / "log" / ITEMS_TOPIC).glob("date=2023-11-14/*.parquet")
    assert pq.ParquetFile(items).read().to_pylist()[0]["attributes"] == '{"genre":["war"]}'


def test_a_restart_goes_on_where_it_was(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    publish_some(kafka, 10, start=10)
    log(kafka, config, tmp_path, 20)
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 20


def test_a_file_that_a_crash_left_uncommitted_is_written_again_not_twice(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    publish_some(kafka, 10, start=10)
    # Another group writes what ours would have, had it died before its commit.
    ahead = StreamConfig(log_group_id="died-before-its-commit")
    left_by_crash = tmp_path / "crash"
    log(kafka, ahead, left_by_crash, 20)
    newest = {0: 0, 1: 0}
    for partition, offset in logged(tmp_path):
        newest[partition] = max(newest[partition], offset + 1)
    for path in (left_by_crash / BEHAVIOR_EVENTS_TOPIC).glob("date=*/*.parquet"):
        number, _, end = path.stem.split("-")
        target = tmp_path / BEHAVIOR_EVENTS_TOPIC / path.parent.name
        path.rename(target / f"{number}-{newest[int(number)]}-{end}.parquet")
    log(kafka, config, tmp_path, 20)
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 20


def test_a_folder_of_another_broker_is_an_error_that_says_so(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    folder = tmp_path / BEHAVIOR_EVENTS_TOPIC / "date=2023-11-14"
    folder.mkdir(parents=True)
    (folder / "0-0-99.parquet").touch()
    publish_some(kafka, 1)
    with pytest.raises(ValueError, match="another broker"):
        log(kafka, config, tmp_path, 1)


def test_a_bug_ends_the_writer_and_names_the_records(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(log_writer, "write_range", write)
    publish_some(kafka, 1)
    with pytest.raises(TypeError, match="a bug") as error:
        log(kafka, config, tmp_path, 1)
    [place] = error.value.__notes__
    assert re.fullmatch(r"at behavior-events, partition \d, offset 0 to 0", place)


def test_a_full_disk_is_waited_for_and_counted(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = [OSError(errno.ENOSPC, "no space")] * 2

    def write(log_dir: Path, covered: OffsetRange, rows: list[Row]) -> None:
        if full:
            raise full.pop()
        write_range(log_dir, covered, rows)

    counter = RETRIES.labels("log_files")
    before = counter._value.get()
    monkeypatch.setattr(log_writer, "write_range", write)
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    assert len(logged(tmp_path)) == 10
    assert counter._value.get() - before == 2


def number_of_files(log_dir: Path) -> int:
    return sum(len(files_of(log_dir, BEHAVIOR_EVENTS_TOPIC, number)) for number in (0, 1))


def merged_files() -> float:
    [metric] = MERGED.collect()
    of = {each.labels["topic"]: each.value for each in metric.samples}
    return of.get(BEHAVIOR_EVENTS_TOPIC, 0.0)


def test_the_writer_merges_its_files_after_errors_and_readers(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    def merge(log_dir: Path, topic: str, partition: int, committed: int) -> object:
        attempts.append(partition)
        if len(attempts) == 1:
            raise OSError("no space")
        return (
            None if len(attempts) == 2 else merge_some(log_dir, topic, partition, committed)
        )

    monkeypatch.setattr(log_writer, "_MERGE_AT", 4)
    monkeypatch.setattr(log_writer, "_AGAIN_S", 0.0)
    monkeypatch.setattr(log_writer, "merge_some", merge)
    before = merged_files()
    publish_some(kafka, 80)
    often = replace(config, log_flush_records=1, max_poll_records=4)
    log(kafka, often, tmp_path, 80, lambda: number_of_files(tmp_path) < 10)
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 80
    assert merged_files() - before > 10
    publish_some(kafka, 8, start=80)
    log(kafka, often, tmp_path, 88)  # who begins again finds what is merged in order
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 88


def test_what_a_kill_left_unfinished_is_removed_at_the_next_start(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    for path in list(tmp_path.rglob("*.parquet")):
        path.with_suffix(".beef.tmp").touch()
    publish_some(kafka, 1, start=10)
    log(kafka, config, tmp_path, 11, lambda: not list(tmp_path.rglob("*.tmp")))
    assert len(logged(tmp_path)) == 11


def test_the_writer_merges_no_more_than_half_of_its_time(
    config: StreamConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, began = [0.0], list[float]()

    def merge(*_: object) -> list[Path]:
        began.append(now[0])
        now[0] += 3.0
        return [tmp_path]

    async def run() -> None:
        writer = EventLogWriter(KafkaConfig(), config, tmp_path)
        source = TopicPartition(BEHAVIOR_EVENTS_TOPIC, 0)
        writer.group.partitions[source] = log_writer._Partition(committed=9, files=1000)
        for _ in range(12):
            await writer._merge()
            now[0] += 1.0

    monkeypatch.setattr(log_writer, "merge_some", merge)
    monkeypatch.setattr(log_writer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    asyncio.run(run())
    assert began == [0.0, 6.0, 12.0, 18.0]
