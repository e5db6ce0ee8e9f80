"""Publishes events at an even rate, and measures when the raw log has them.

In: a running stack. Out: how long after Kafka had a record its row could be read, and
whether each is in the log once. The log is compacted and vacuumed all the while.
"""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from kafka import KafkaConsumer, TopicPartition
from msgspec import structs

from srp4ctr.errors import OutageError
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, UserEvent
from srp4ctr.streams.raw_log import compaction, delta_tables
from srp4ctr.streams.raw_log.delta_tables import dataset
from srp4ctr.testing.fault_injection.cluster import Cluster

# A sample opens the table, and a turn of tidying looks at each partition: on two cores more
# of them would measure themselves.
_POLL_S, _TICK_S, _TIDY_S = 0.2, 0.005, 5.0
# Workers that have just started share out the partitions for seconds, and fall behind by
# ten: the fault suite measures that. These events go through before any is measured.
_FIRST_EVENTS, _FIRST_PER_S = 10_000, 1_000.0
_PATIENCE_S = 120.0
TOPIC = BEHAVIOR_EVENTS_TOPIC
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """The next offsets of Kafka and then of the log, by partition."""

    kafka_s: float
    kafka: Sequence[int]
    log_s: float
    log: Sequence[int]


def in_the_log(stack: Cluster, events: Sequence[UserEvent], per_s: float) -> Row:
    """Publish ``events`` as happening now and return how fresh and whole the log is.

    Raises ``TimeoutError`` if the log has not all of them within two minutes.
    """
    log = Path(stack.features.log_dir)
    published = _published_before(stack, events, log)
    with (
        _process(_sample, stack.kafka, log) as samples,
        _process(_tidy, log, stack.kafka.partitions),
    ):
        took_s = _publish(stack, events[published:], per_s)
        _wait_logged(stack, log, len(events))
        samples.send(None)
        seen: list[_Sample] = samples.recv()
    each = [_waits(seen, p) for p in range(stack.kafka.partitions)]
    p50, p99 = np.percentile(np.concatenate(each), (50, 99)).tolist()
    return {
        "per_s": (len(events) - published) / took_s,
        "freshness_p50_s": round(p50, 3),
        "freshness_p99_s": round(p99, 3),
        **_verdict(log, len(events)),
    }


def _published_before(stack: Cluster, events: Sequence[UserEvent], log: Path) -> int:
    """Publish the first of ``events``, wait until they are logged, return how many."""
    number = min(len(events) // 10, _FIRST_EVENTS)
    _publish(stack, events[:number], _FIRST_PER_S)
    _wait_logged(stack, log, number)
    return number


def _wait_logged(stack: Cluster, log: Path, number: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while sum(_ends(log, stack.kafka.partitions)) < number:
        stack.check_alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the log has not all events after {_PATIENCE_S:g} s")
        time.sleep(_POLL_S)


def _publish(stack: Cluster, events: Sequence[UserEvent], per_s: float) -> float:
    with EventPublisher(stack.kafka) as publisher:
        began = time.monotonic()
        for number, event in enumerate(events):
            while (wait_s := began + number / per_s - time.monotonic()) > 0:
                time.sleep(max(wait_s, _TICK_S))
            now_ms = time.time_ns() // 1_000_000
            publisher.publish(structs.replace(event, occurred_at=now_ms))
        return time.monotonic() - began


def _verdict(log: Path, published: int) -> Row:
    """Return how many rows there are, how many are missing, and how many come twice."""
    ids = dataset(log, TOPIC).to_table(["event_id"])["event_id"]
    once = pc.count_distinct(ids).as_py()
    return {"rows": len(ids), "lost": published - once, "wrong": len(ids) - once}


def _waits(samples: Sequence[_Sample], partition: int) -> Any:
    """Return after how many seconds the log had each new end of Kafka's partition (n,).

    Both ends only grow, so the first sample of the log that is not behind is searched for.
    """
    kafka = np.array([sample.kafka[partition] for sample in samples])
    log = np.array([sample.log[partition] for sample in samples])
    log_s = np.array([sample.log_s for sample in samples])
    moved = np.flatnonzero(np.diff(kafka, prepend=kafka[:1]) > 0)
    found = np.searchsorted(log, kafka[moved])
    kafka_s = np.array([sample.kafka_s for sample in samples])[moved]
    return np.maximum(log_s[found] - kafka_s, 0.0)


def _sample(pipe: Any, kafka: KafkaConfig, log: Path) -> None:
    """Sample both ends until something comes, and once after it; then send all samples."""
    places = [TopicPartition(TOPIC, each) for each in range(kafka.partitions)]
    consumer = KafkaConsumer(**client_arguments(kafka))
    samples: list[_Sample] = []
    is_last = False
    while not is_last:
        is_last = pipe.poll(_POLL_S)
        ends = consumer.end_offsets(places)
        kafka_s = time.monotonic()
        logged = _ends(log, kafka.partitions)
        samples.append(
            _Sample(
                kafka_s=kafka_s,
                kafka=[ends[place] for place in places],
                log_s=time.monotonic(),
                log=logged,
            )
        )
    consumer.close()
    pipe.send(samples)


def _ends(log: Path, partitions: int) -> list[int]:
    table = delta_tables.opened(log, TOPIC)
    if table is None:
        return [0] * partitions
    return [delta_tables.next_offset(table, each) or 0 for each in range(partitions)]


def _tidy(pipe: Any, log: Path, partitions: int) -> None:
    """Compact and vacuum until something comes."""
    while not pipe.poll(_TIDY_S):
        for topic in delta_tables.LOGGED_TOPICS:
            try:
                for partition in range(partitions):
                    compaction.compact(log, topic, partition)
                delta_tables.vacuum(log, topic)
            except OutageError:  # a conflict: the next turn does it
                continue


@contextmanager
def _process(call: Any, *arguments: Any) -> Iterator[Any]:
    """Run ``call(pipe, *arguments)`` in a process of its own and yield our end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=call, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # ``poll`` of a closed pipe is true, and the process ends
        process.join(_PATIENCE_S)
