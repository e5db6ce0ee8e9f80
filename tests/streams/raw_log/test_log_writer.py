import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake

from srp4ctr.errors import OutageError
from srp4ctr.retries import RETRIES
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC
from srp4ctr.streams.raw_log import compaction, delta_tables, log_writer
from srp4ctr.streams.raw_log.delta_tables import append, created, dataset, next_offset
from srp4ctr.streams.raw_log.log_tables import table_of
from srp4ctr.streams.raw_log.log_writer import MERGED
from srp4ctr.testing.raw_logs import write_log
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
    [item] = dataset(tmp_path / "log", ITEMS_TOPIC).to_table().to_pylist()
    assert item["date"] == "2023-11-14"
    assert item["attributes"] == '{"genre":["war"]}'


def test_a_restart_resumes_where_it_was(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    publish_some(kafka, 10, start=10)
    log(kafka, config, tmp_path, 20)
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 20


def ends(log_dir: Path) -> dict[int, int]:
    table = created(log_dir, BEHAVIOR_EVENTS_TOPIC)
    return {each: next_offset(table, each) or 0 for each in (0, 1)}


def test_what_a_crash_left_uncommitted_is_not_written_again(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 10)
    log(kafka, config, tmp_path / "log", 10)
    publish_some(kafka, 10, start=10)
    # Another group writes the rows that this one would, if killed before its commit.
    ahead = StreamConfig(log_group_id="died-before-its-commit")
    log(kafka, ahead, tmp_path / "crash", 20)
    ours, theirs = ends(tmp_path / "log"), ends(tmp_path / "crash")
    crashed = dataset(tmp_path / "crash", BEHAVIOR_EVENTS_TOPIC).to_table()
    new = [row for row in crashed.to_pylist() if row["offset"] >= ours[row["partition"]]]
    left = crashed.from_pylist(new, schema=crashed.schema)
    taken = {each: range(ours[each], theirs[each]) for each in ours}
    assert append(created(tmp_path / "log", BEHAVIOR_EVENTS_TOPIC), left, taken)
    log(kafka, config, tmp_path / "log", 20)
    found = logged(tmp_path / "log")
    assert len(found) == len(set(found)) == 20


def test_a_table_of_another_broker_is_an_error_that_says_so(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    nothing, taken = table_of(BEHAVIOR_EVENTS_TOPIC, []), range(0, 99)
    table = created(tmp_path, BEHAVIOR_EVENTS_TOPIC)
    assert append(table, nothing, {0: taken, 1: taken})
    publish_some(kafka, 1)
    with pytest.raises(ValueError, match="another broker"):
        log(kafka, config, tmp_path, 1)


def test_what_a_broker_lost_stays_and_what_comes_in_its_place_is_logged(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    lost = a_behavior(user_id="lost")
    for partition, end in ends(tmp_path).items():  # of which Kafka has none
        write_log(tmp_path, [(lost, NOON_MS)] * 3, partition, end)
    log(kafka, config, tmp_path, 10, lambda: sum(ends(tmp_path).values()) == 10)
    publish_some(kafka, 10, start=10)
    log(kafka, config, tmp_path, 20)
    rows = dataset(tmp_path, BEHAVIOR_EVENTS_TOPIC).to_table(["user_id"]).to_pydict()
    users = Counter(rows["user_id"])
    assert users == {"lost": 6} | {f"u{each}": 1 for each in range(20)}
    assert sum(ends(tmp_path).values()) == 20


def test_a_bug_ends_the_writer_and_names_the_records(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(*_: object, **__: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(delta_tables, "write_deltalake", write)
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
    full = [OSError("no space left on device")] * 2

    def write(*arguments: Any, **options: Any) -> None:
        if full:
            raise full.pop()
        write_deltalake(*arguments, **options)

    counter = RETRIES.labels("log_files")
    before = counter._value.get()
    monkeypatch.setattr(delta_tables, "write_deltalake", write)
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    assert len(logged(tmp_path)) == 10
    assert counter._value.get() - before == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = [OSError("connection reset")]

    def write(*arguments: Any, **options: Any) -> None:
        write_deltalake(*arguments, **options)
        if lost:
            raise lost.pop()

    monkeypatch.setattr(delta_tables, "write_deltalake", write)
    publish_some(kafka, 10)
    log(kafka, config, tmp_path, 10)
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 10


def number_of_files(log_dir: Path) -> int:
    return len(dataset(log_dir, BEHAVIOR_EVENTS_TOPIC).files)


def merged_files() -> float:
    [metric] = MERGED.collect()
    totals = [sample for sample in metric.samples if sample.name.endswith("_total")]
    of = {total.labels["topic"]: total.value for total in totals}
    return of.get(BEHAVIOR_EVENTS_TOPIC, 0.0)


def test_the_writer_joins_its_files_and_removes_old_dates(
    kafka: KafkaConfig,
    config: StreamConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conflicts, really = [OutageError("a conflict")], compaction.compact

    def compact(log_dir: Path, topic: str, partition: int) -> int:
        if conflicts:
            raise conflicts.pop()
        return really(log_dir, topic, partition)

    monkeypatch.setattr(log_writer, "_TIDY_EVERY_S", 0.2)
    monkeypatch.setattr(log_writer, "_EXPIRE_EVERY_S", 0.2)  # not before the last record
    monkeypatch.setattr(compaction, "compact", compact)
    before = merged_files()
    publish_some(kafka, 80)
    often = replace(config, log_flush_records=1, max_poll_records=4)
    log(kafka, often, tmp_path, 80, lambda: number_of_files(tmp_path) < 10)
    assert len(logged(tmp_path)) == len(set(logged(tmp_path))) == 80
    assert merged_files() - before > 10
    brief = replace(often, log_retention_days=9.0)  # what was published is of 2023
    publish_some(kafka, 8, start=80)
    log(kafka, brief, tmp_path, 88, lambda: not logged(tmp_path))
    assert sum(ends(tmp_path).values()) == 88
