import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, now_ms
from srp4ctr.streams.raw_log.delta_tables import read_rows
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.worker import replay
from srp4ctr.testing.raw_logs import write_log
from tests.builders import NOON_MS, a_behavior, an_impression
from tests.streams.workers import NO_LOG

SOURCE = TopicPartition(BEHAVIOR_EVENTS_TOPIC, 0)


class EmptyKafka:
    """A consumer of a partition of which everything was dropped."""

    def __init__(self, **_: object) -> None:
        pass

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def assign(self, sources: list[TopicPartition]) -> None:
        pass

    async def beginning_offsets(self, sources: object) -> dict[TopicPartition, int]:
        return {SOURCE: 2}

    async def end_offsets(self, sources: object) -> dict[TopicPartition, int]:
        return {SOURCE: 2}

    async def offsets_for_times(self, times: object) -> dict[TopicPartition, None]:
        return {SOURCE: None}


def test_the_log_is_not_waited_for_in_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def read(*place: Any) -> Iterator[list[dict[str, Any]]]:
        threads.append(threading.current_thread())
        yield from read_rows(*place)

    async def run() -> list[int]:
        async with replay.ReplaySource.opened(KafkaConfig(), tmp_path, SOURCE) as opened:
            batches = [batch async for batch in opened.events(0, 2)]
        return [event.offset for batch in batches for event in batch]

    write_log(tmp_path, [(a_behavior(), NOON_MS), (a_behavior("i2"), NOON_MS)])
    monkeypatch.setattr(replay, "AIOKafkaConsumer", EmptyKafka)
    monkeypatch.setattr(replay, "read_rows", read)
    assert asyncio.run(run()) == [0, 1]
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_a_reader_is_stopped_whole_though_its_task_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []

    class SlowToStop(EmptyKafka):
        async def stop(self) -> None:
            stopped.append("begun")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            stopped.append("done")

    async def read() -> None:
        async with replay.ReplaySource.opened(KafkaConfig(), tmp_path, SOURCE):
            pass

    async def run() -> None:
        reading = asyncio.create_task(read())
        while not stopped:
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    monkeypatch.setattr(replay, "AIOKafkaConsumer", SlowToStop)
    asyncio.run(run())
    assert stopped == ["begun", "done"]


LONG_AGO_MS = 30 * 86_400_000
LATELY_MS = 3_600_000


def replayed(
    kafka: KafkaConfig, ages_ms: list[int], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[int]]:
    """Publish an impression of each age, and start behind the last.

    Returns how many impressions wait for their clicks, and which offsets were read.
    """
    now, read = now_ms(), list[int]()
    with EventPublisher(kafka) as publisher:
        for number, age_ms in enumerate(ages_ms):
            event = an_impression(f"i{number}", at_ms=now - age_ms)
            place = (BEHAVIOR_EVENTS_TOPIC, encode(event), event.user_id.encode())
            publisher.send(*place, event.occurred_at)
        future = publisher.submit(
            an_impression("last", at_ms=now - LONG_AGO_MS), backfill=True
        )
        publisher.flush()
    source = TopicPartition(BEHAVIOR_EVENTS_TOPIC, future.get().partition)
    config = StreamConfig(label_window_s=60.0, max_kept_impressions=5)
    state = PartitionState(source.partition, len(ages_ms) + 1, config)
    taken = PartitionState.replay

    def replay_events(state: PartitionState, events: Any, now_ms: int) -> None:
        read.extend(each.offset for each in events)
        taken(state, events, now_ms)

    async def run() -> None:
        async with replay.ReplaySource.opened(kafka, NO_LOG, source) as past:
            await replay.replay_memory(past, config, state)

    monkeypatch.setattr(replay, "DUPLICATE_RECORDS", 5)
    monkeypatch.setattr(PartitionState, "replay", replay_events)
    asyncio.run(run())
    return state.labels.waiting, read


@pytest.mark.kafka
def test_a_backfill_as_the_last_record_does_not_replay_the_whole_partition(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, read = replayed(kafka, [2 * LATELY_MS] * 200 + [LATELY_MS], monkeypatch)
    assert read == list(range(197, 202))


@pytest.mark.kafka
def test_a_backfill_as_the_last_record_leaves_open_windows_open(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages_ms = [LATELY_MS] * 100 + [1000] * 20 + [LONG_AGO_MS] * 30
    waiting, read = replayed(kafka, ages_ms, monkeypatch)
    assert (waiting >= 20, min(read)) == (True, 100)


@pytest.mark.kafka
def test_a_past_out_of_order_is_replayed_up_to_a_number_of_records(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replay, "MOST_RECORDS", 50)
    _, read = replayed(kafka, [1000] + [LONG_AGO_MS] * 200, monkeypatch)
    assert read == list(range(152, 202))
    assert "before offset 152" in caplog.text
