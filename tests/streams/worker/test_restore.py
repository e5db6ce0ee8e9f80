"""A raw log, restored into a new Kafka, is what the lost one held."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import BACKFILL_HEADER, encode
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    REJECTED_TOPIC,
)
from srp4ctr.streams.raw_log.delta_tables import Log
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.streams.worker.restore import logged, restore
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from srp4ctr.testing.raw_logs import Published, write_log
from tests.builders import (
    NOON_MS,
    a_behavior,
    a_click,
    a_forget,
    a_profile,
    an_impression,
    an_item,
)
from tests.streams.memory_sink import MemorySink
from tests.streams.workers import impressions_of, run_until_committed

LATE_MS = NOON_MS + 3_600_000
A_PAST: list[Published] = [
    (an_item("i1", genre=["drama", "war"], year="1994"), NOON_MS),
    (an_impression("i1", context={"page": "home"}, score=0.5), NOON_MS + 100),
    (a_click("i1"), LATE_MS),  # known long after it happened
    (a_behavior("i1", value=4.5), LATE_MS + 1),
    (a_profile(age="34", towns=["Ulm"]), LATE_MS + 2),
    (a_forget(at_ms=NOON_MS), LATE_MS + 2),
]


def test_every_event_comes_back_with_when_it_was_known(tmp_path: Path) -> None:
    log = write_log(tmp_path, A_PAST)
    assert list(logged(log)) == A_PAST


@pytest.mark.kafka
def test_a_new_broker_holds_what_the_lost_one_held(
    kafka: KafkaConfig, raw_log: Log
) -> None:
    log = write_log(raw_log, A_PAST)
    assert restore(kafka, log) == {ITEMS_TOPIC: 1, BEHAVIOR_EVENTS_TOPIC: 5}
    found = read_topic(kafka, ITEMS_TOPIC) + read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert [(r.value, r.timestamp) for r in found] == [(encode(e), at) for e, at in A_PAST]  # type: ignore[arg-type]
    assert [record.key for record in found] == [b"i1", *[b"u1"] * 5]
    assert {dict(record.headers).get(BACKFILL_HEADER) for record in found} == {b"1"}
    with pytest.raises(ValueError, match="has had 1 records"):
        restore(kafka, log)  # everything would count twice


@pytest.mark.kafka
def test_what_was_anonymized_comes_back_and_counts(
    kafka: KafkaConfig, config: StreamConfig, tmp_path: Path
) -> None:
    log = write_log(tmp_path, [*A_PAST[:3], (a_forget(at_ms=LATE_MS), LATE_MS)])
    erase_forgotten(log)
    assert restore(kafka, log) == {ITEMS_TOPIC: 1, BEHAVIOR_EVENTS_TOPIC: 3}
    run_until_committed(kafka, config, sink := MemorySink(), 3)
    assert read_topic(kafka, REJECTED_TOPIC) == []
    assert impressions_of(sink, "i1") == pytest.approx(1, abs=0.01)


def test_another_folder_is_no_raw_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no raw log"):
        restore(KafkaConfig(), tmp_path)


def test_the_log_that_workers_write_is_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRP4CTR_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    done = CliRunner().invoke(app, ["events", "restore", ".data/events"])
    assert "move it away first" in str(done.exception)
