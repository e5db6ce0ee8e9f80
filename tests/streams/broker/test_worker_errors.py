"""What may pass is waited for and counted; anything else ends the worker and is located."""

import asyncio
import errno
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from srp4ctr.errors import ArtifactError
from srp4ctr.retries import RETRIES
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import UserEvent
from srp4ctr.streams.state import partition_state
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows, fold_users
from srp4ctr.streams.state.state_store import NO_OFFSETS
from tests.builders import a_behavior
from tests.streams.memory_sink import MemorySink
from tests.streams.records import ARecord, records
from tests.streams.unconnected import STAYS, AWorker, run


class RefusingSink(MemorySink):
    """A store that ends the worker: at its first read, or at its first write."""

    def __init__(self, refused: str, error: Exception) -> None:
        super().__init__()
        self.refused = refused
        self.error = error
        self.may_answer = threading.Event()

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        if self.refused == "read":
            raise self.error
        return super().read(user_ids, shares)

    def write(self, rows: Rows, offsets: Mapping[int, int] = NO_OFFSETS) -> None:
        self.may_answer.wait(10)
        if self.refused == "write":
            self.refused = "nothing more"
            raise self.error
        super().write(rows, offsets)


@pytest.mark.parametrize("kind", [ArtifactError, TypeError])
@pytest.mark.parametrize(
    ("refused", "place"),
    [
        ("read", "at behavior-events, partition 0, offset 0"),
        ("write", "at behavior-events, next offsets by partition {0: 1}"),
    ],
)
def test_what_no_repetition_changes_ends_the_worker_without_a_commit(
    refused: str, place: str, kind: type[Exception]
) -> None:
    error = kind("no repetition changes it")
    sink = RefusingSink(refused, error)

    async def story(worker: AWorker, _: MemorySink) -> None:
        worker._sink = sink
        await worker.assign_sources(STAYS)
        await worker.polls()
        for number in range(2):  # the second is folded while the first is on its way
            event = a_behavior(user_id=f"u{number}")
            worker.consumer.batches = [{STAYS: on(STAYS, event, start=number)}]
            await asyncio.sleep(0.05)
        sink.may_answer.set()
        while not worker.crash_reason:
            await asyncio.sleep(0.001)
        await worker.group.flush_and_release()  # as when it stops
        assert worker.consumer.commits == []
        assert worker.crash_reason is error
        assert error.__notes__ == [place]

    run(story)


def test_the_error_of_a_batch_names_the_record_that_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fold(
        rows: object, batch: list[tuple[LoggedEvent, bool]], config: StreamConfig
    ) -> object:
        if any(each.event.user_id == "strange" for each, _ in batch):
            raise TypeError("a bug")
        return fold_users({}, batch, config)

    async def story(worker: AWorker, sink: MemorySink) -> None:
        await worker.assign_sources(STAYS)
        await worker.polls()
        users = ["u1", "u2", "strange", "u4"]
        batch = on(STAYS, *(a_behavior(user_id=user) for user in users), start=5)
        worker.consumer.batches = [{STAYS: batch}]
        while not worker.crash_reason:
            await asyncio.sleep(0.001)
        found = worker.crash_reason.__notes__
        assert found == ["at behavior-events, partition 0, offset 7"]

    monkeypatch.setattr(partition_state, "fold_users", fold)
    run(story)


@pytest.mark.parametrize(
    "outage", [ConnectionError("gone"), TimeoutError(), OSError(errno.ENOSPC, "full")]
)
def test_an_outage_of_the_store_is_waited_for_and_counted(outage: Exception) -> None:
    class AwayAtFirst(MemorySink):
        away = 2

        def write(self, rows: Rows, offsets: Mapping[int, int] = NO_OFFSETS) -> None:
            if self.away:
                self.away -= 1
                raise outage
            super().write(rows, offsets)

    async def story(worker: AWorker, _: MemorySink) -> None:
        worker._sink = sink
        await worker.assign_sources(STAYS)
        await worker.polls()
        worker.consumer.batches = [{STAYS: on(STAYS, a_behavior())}]
        while not worker.consumer.commits:
            await worker.polls(1)

    sink, counter = AwayAtFirst(), RETRIES.labels("store_write")
    before = counter._value.get()
    run(story)
    assert (len(sink.rows), counter._value.get() - before) == (1, 2)


def on(source: TopicPartition, *events: UserEvent, start: int = 0) -> list[ARecord]:
    """Return the records of ``events`` on ``source``."""
    found = records(*events, start=start)
    return [replace(each, partition=source.partition) for each in found]
