"""Starts a stack with full sequences, publishes a load's events, and measures workers.

In: which broker. Out: addresses, what a user's rows take in the store, and the rate of
the workers that ``srp4ctr stream run`` starts. Everything ends with the ``with`` block.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
from kafka.errors import KafkaError
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, UserEvent
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.testing.fault_injection.cluster import Cluster, cluster
from srp4ctr.testing.fault_injection.progress import administration, lag_of, members_of
from srp4ctr.testing.ingest_events import (
    USERS,
    past_user,
    user_ids,
)

MEASURED_KEYS = 200
_START_S, _RUN_S = 90.0, 600.0
_FSYNC_S = 1.5  # Valkey's append-only file keeps its buffers for a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast, by the clock and by the CPU time of the process that did it."""

    per_s: float
    per_core_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one user in the store."""

    key: float
    """``MEMORY USAGE`` of the user's key, a mean: the rows, its name and its fields'."""
    share: float
    """What all users added to ``used_memory``, by user: Valkey's own tables too."""


@contextmanager
def running_stack(which: str, length: int) -> Iterator[Cluster]:
    """Yield broker ``which`` (``kafka`` or ``noida``) and the store, for histories of L."""
    streams = StreamConfig(sequence_length=length)
    with tempfile.TemporaryDirectory() as name:
        partitions = KafkaConfig().partitions
        with cluster(Path(name), streams, partitions, which) as stack:
            yield stack


def fill(stack: Cluster, length: int, start_ms: int) -> Memory:
    """Give every user L behaviours, counters and exposures; return what they take."""
    from srp4ctr.features.online.store import FeatureStoreSink

    store: Any = Redis.from_url(f"redis://{stack.features.redis}")
    before = int(store.info("memory")["used_memory"])
    sink = FeatureStoreSink(stack.features)
    numbered = enumerate(user_ids())
    while some := list(islice(numbered, 1000)):
        users = {user: past_user(n, length, start_ms) for n, user in some}
        sink.write(Rows(users=users))
    time.sleep(_FSYNC_S)
    keys = [key for key in store.scan_iter(count=1000) if b"user_id" in key]
    assert len(keys) == USERS
    used = [store.memory_usage(key, samples=0) for key in keys[:MEASURED_KEYS]]
    after = int(store.info("memory")["used_memory"])
    store.close()
    return Memory(key=statistics.fmean(used), share=(after - before) / USERS)


def publish(stack: Cluster, events: Iterable[UserEvent]) -> None:
    """Publish ``events`` as known since they happened."""
    with EventPublisher(stack.kafka) as publisher:
        for event in events:
            publisher.publish(event, backfill=True)


def rate_of(stack: Cluster, workers: Sequence[processes.Running], total: int) -> Rate:
    """Return the rate at which ``workers`` process the ``total`` events of the topic.

    The clock runs from when they all have their partitions to the last commit; their CPU
    time until the raw log has every event and label. Rows are read from the store at first
    touch. What the first have processed by then does not count.
    """
    events = {stack.streams.group_id: [BEHAVIOR_EVENTS_TOPIC]}
    log = {stack.streams.log_group_id: [BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC]}
    with administration(stack.kafka) as admin:

        def wait(is_so: Callable[[], bool], timeout_s: float = _RUN_S) -> None:
            is_ready = partial(_try, stack, is_so)
            processes.wait_ready(workers[0], is_ready, timeout_s=timeout_s)

        def lag(topics_of: dict[str, list[str]]) -> int:
            return lag_of(admin, stack.kafka.partitions, topics_of)

        group = stack.streams.group_id
        wait(lambda: members_of(admin, group) == len(workers), _START_S)
        started, left = time.monotonic(), lag(events)
        used_s = sum(cpu_s(worker.pid) for worker in workers)
        wait(lambda: lag(events) == 0)
        wall_s = time.monotonic() - started
        wait(lambda: lag(log) == 0)
        used_s = sum(cpu_s(worker.pid) for worker in workers) - used_s
    processed = sum(
        _processed(stack.metrics_port(number)) for number in range(len(workers))
    )
    assert processed >= total  # none was rejected; a partition that moves is read again
    return Rate(per_s=left / wall_s, per_core_s=left / used_s)


def _try(stack: Cluster, is_so: Callable[[], bool]) -> bool:
    """Return ``is_so()``, or False where the broker is alive and does not answer.

    Before its first group it makes a topic for them.
    """
    try:
        return is_so()
    except KafkaError:
        stack.check_alive()
        return False


def _processed(metrics_port: int) -> float:
    """Return how many events the worker says that it has processed."""
    with urlopen(f"http://{ports.HOST}:{metrics_port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = (sample for family in families for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "srp4ctr_events_total")


def cpu_s(pid: int) -> float:
    """Return the CPU time of process ``pid`` so far, all threads, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
