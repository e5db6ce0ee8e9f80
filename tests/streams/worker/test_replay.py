import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from benchmarks.harness.raw_logs import write_log
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import known_ms, read_rows
from srp4ctr.streams.worker import replay
from tests.builders import NOON_MS, a_behavior

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

    def known(*place: Any) -> int | None:
        threads.append(threading.current_thread())
        return known_ms(*place)

    def read(*place: Any) -> Iterator[list[dict[str, Any]]]:
        threads.append(threading.current_thread())
        yield from read_rows(*place)

    async def run() -> tuple[int | None, list[int]]:
        async with replay.ReplaySource.opened(KafkaConfig(), tmp_path, SOURCE) as opened:
            known_at = await opened.known_ms(0)
            batches = [batch async for batch in opened.events(0, 2)]
        return known_at, [event.offset for batch in batches for event in batch]

    write_log(tmp_path, [(a_behavior(), NOON_MS), (a_behavior("i2"), NOON_MS)])
    monkeypatch.setattr(replay, "AIOKafkaConsumer", EmptyKafka)
    monkeypatch.setattr(replay, "known_ms", known)
    monkeypatch.setattr(replay, "read_rows", read)
    assert asyncio.run(run()) == (NOON_MS, [0, 1])
    assert len(threads) == 2
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
