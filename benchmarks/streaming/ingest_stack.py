"""One load → a stack of its own with full sequences, its events published, a worker.

In: which broker. Out: addresses, what a user's rows take in the store, and the rate of
the worker that ``srp4ctr stream run`` starts. Everything ends with the ``with`` block.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError
from redis import Redis

from benchmarks.streaming.ingest_events import (
    USERS,
    Load,
    history,
    past_activity,
    past_exposures,
    user_ids,
)
from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, broker, ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, UserEvent
from srp4ctr.streams.state.reducers import Rows

MAX_WORKERS = 4
MEASURED_KEYS = 200
_START_S, _RUN_S = 90.0, 600.0
_FSYNC_S = 1.5  # Valkey's append-only file keeps its buffers for a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running broker and store."""

    folder: Path
    kafka: KafkaConfig
    features: FeatureConfig
    metrics_port: int
    """The worker's, once there is one."""
    further_metrics_ports: tuple[int, ...]
    """Of further workers."""
    servers: tuple[processes.Running, ...]
    """The store and the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast, by the clock and by the CPU time of the process that did it."""

    per_s: float
    per_core_s: float

    def over(self, other: "Rate") -> "Rate":
        """Return both ratios to ``other``."""
        return Rate(
            per_s=self.per_s / other.per_s, per_core_s=self.per_core_s / other.per_core_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one user in the store."""

    payload: float
    """What we store: the packed sequence, counters and exposures."""
    key: float
    """``MEMORY USAGE`` of the user's key, a mean: the payload, its name and its fields'."""
    share: float
    """What all users added to ``used_memory``, by user: Valkey's own tables too."""


@contextmanager
def running_stack(which: str) -> Iterator[Stack]:
    """Yield broker ``which`` (``kafka`` or ``noida``) with our topics, and the store."""
    from srp4ctr.features.online.feast_store import apply  # Feast: 3 s

    with (
        tempfile.TemporaryDirectory() as name,
        ports.reserved_ports(3 + MAX_WORKERS) as free,
    ):
        kafka_port, controller_port, store_port, metrics_port, *further = free
        folder = Path(name)
        kafka = KafkaConfig(bootstrap=f"{ports.HOST}:{kafka_port}")
        features = FeatureConfig(
            redis=f"{ports.HOST}:{store_port}",
            registry=str(folder / "registry.db"),
            log_dir=str(folder / "events"),
            partitions=kafka.partitions,
        )
        try:
            store = broker.start_store(folder, store_port, tied=True)
            if which == "kafka":
                events = apache_kafka.start(folder, kafka_port, controller_port, tied=True)
            else:
                events = broker.start_broker(folder, kafka_port, tied=True)
            ensure_topics(kafka)
            apply(features)
            yield Stack(
                folder=folder,
                kafka=kafka,
                features=features,
                metrics_port=metrics_port,
                further_metrics_ports=tuple(further),
                servers=(store, events),
            )
        finally:
            stop_all(folder)


def stop_all(folder: Path) -> None:
    """End what runs in ``folder``, workers before what they write to."""
    rank = {"store": 2, "kafka": 1, "broker": 1}
    for running in sorted(processes.find(folder), key=lambda each: rank.get(each.name, 0)):
        processes.stop(running, folder)


def fill(stack: Stack, load: Load, start_ms: int) -> Memory:
    """Give every user L behaviours, counters and exposures; return what they take."""
    from srp4ctr.features.online.row_codec import (
        PACKED,
        pack_activity,
        pack_exposures,
        pack_sequence,
    )
    from srp4ctr.features.online.store import FeatureStoreSink

    store: Any = Redis.from_url(f"redis://{stack.features.redis}")
    before = int(store.info("memory")["used_memory"])
    sink, past = FeatureStoreSink(stack.features), past_activity(start_ms)
    numbered = enumerate(user_ids())
    while some := list(islice(numbered, 1000)):
        sequences = {user: history(n, load.length, start_ms) for n, user in some}
        activities = dict.fromkeys(sequences, past)
        exposures = {user: past_exposures(n, start_ms) for n, user in some}
        sink.write(Rows(sequences=sequences, activities=activities, exposures=exposures))
    packed = (
        pack_sequence(history(0, load.length, start_ms)),
        pack_activity(past),
        pack_exposures(past_exposures(0, start_ms)),
    )
    time.sleep(_FSYNC_S)
    keys = [key for key in store.scan_iter(count=1000) if b"user_id" in key]
    assert len(keys) == USERS
    used = [store.memory_usage(key, samples=0) for key in keys[:MEASURED_KEYS]]
    after = int(store.info("memory")["used_memory"])
    store.close()
    return Memory(
        payload=sum(len(values[PACKED].bytes_val) for values in packed),
        key=statistics.fmean(used),
        share=(after - before) / USERS,
    )


def publish(stack: Stack, events: Iterable[UserEvent]) -> None:
    """Publish ``events`` as known since they happened."""
    with EventPublisher(stack.kafka) as publisher:
        for event in events:
            publisher.publish(event, backfill=True)


def start_worker(stack: Stack, length: int, number: int = 0) -> processes.Running:
    """Start ``srp4ctr stream run`` at length L, the ``number``-th; return at once."""
    name = f"worker-{number}" if number else "worker"
    metrics_port = (stack.metrics_port, *stack.further_metrics_ports)[number]
    settings = {
        "SETTINGS": str(stack.folder / "none.toml"),  # nothing but defaults and these
        "EMBEDDED__DATA_DIR": str(stack.folder),
        "KAFKA__BOOTSTRAP": stack.kafka.bootstrap,
        "FEATURES__REDIS": stack.features.redis,
        "FEATURES__REGISTRY": stack.features.registry,
        "FEATURES__LOG_DIR": stack.features.log_dir,
        "STREAMS__SEQUENCE_LENGTH": str(length),
        "STREAMS__METRICS_PORT": str(metrics_port),
    }
    env = {f"SRP4CTR_{name}": value for name, value in settings.items()}
    program = processes.python(name, "-m", "srp4ctr.cli", "stream", "run", env=env)
    return processes.start(program, stack.folder, tied=True)


def worker_rate(stack: Stack, worker: processes.Running, total: int) -> Rate:
    """Return the rate at which ``worker`` works off the topic: see ``rate_of``."""
    return rate_of(stack, [worker], total)


def rate_of(stack: Stack, workers: Sequence[processes.Running], total: int) -> Rate:
    """Return the rate at which ``workers`` work off the ``total`` events of the topic.

    The clock runs from when they all have their partitions to the last commit; their CPU
    time until the raw log has every event and label. Rows are read from the store at first
    touch. What the first have folded by then does not count.
    """
    config = StreamConfig()
    admin = KafkaAdminClient(**client_arguments(stack.kafka))

    def wait(is_so: Callable[[], bool], timeout_s: float = _RUN_S) -> None:
        processes.wait_ready(workers[0], lambda: _answer(stack, is_so), timeout_s=timeout_s)

    try:
        wait(lambda: _is_assigned(admin, config.group_id, len(workers)), _START_S)
        started = time.monotonic()
        left = total - _committed(admin, config.group_id, BEHAVIOR_EVENTS_TOPIC)
        used_s = sum(cpu_s(each.pid) for each in workers)
        wait(lambda: _committed(admin, config.group_id, BEHAVIOR_EVENTS_TOPIC) >= total)
        wall_s = time.monotonic() - started
        wait(lambda: _committed(admin, config.log_group_id, BEHAVIOR_EVENTS_TOPIC) >= total)
        labels = _end(admin, LABELS_TOPIC, stack.kafka.partitions)
        wait(lambda: _committed(admin, config.log_group_id, LABELS_TOPIC) >= labels)
        used_s = sum(cpu_s(each.pid) for each in workers) - used_s
    finally:
        admin.close()
    all_ports = (stack.metrics_port, *stack.further_metrics_ports)
    folded = sum(_folded(port) for port in all_ports[: len(workers)])
    assert folded >= total  # none was rejected; a partition that moves is folded again
    return Rate(per_s=left / wall_s, per_core_s=left / used_s)


def _answer(stack: Stack, is_so: Callable[[], bool]) -> bool:
    """Return ``is_so()``, or False where the broker is alive and does not say.

    Before its first group it makes a topic for them.
    """
    try:
        return is_so()
    except KafkaError:
        for server in stack.servers:
            processes.check_alive(server)
        return False


def _is_assigned(admin: KafkaAdminClient, group: str, members: int) -> bool:
    described = admin.describe_groups([group])[group]
    is_stable = described["group_state"] == "Stable"
    return is_stable and len(described["members"]) == members


def _committed(admin: KafkaAdminClient, group: str, topic: str) -> int:
    """Return how many records of ``topic`` the group has committed."""
    offsets = admin.list_group_offsets([group])[group]
    return sum(at.offset for each, at in offsets.items() if each.topic == topic)


def _end(admin: KafkaAdminClient, topic: str, partitions: int) -> int:
    """Return how many records ``topic`` has."""
    sources = [TopicPartition(topic, number) for number in range(partitions)]
    ends = admin.list_partition_offsets(dict.fromkeys(sources, OffsetSpec.LATEST))
    return sum(end.offset for end in ends.values())


def _folded(metrics_port: int) -> float:
    """Return how many events the worker says that it has folded."""
    with urlopen(f"http://{ports.HOST}:{metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    counted = (line for line in lines if line.startswith("srp4ctr_events_total{"))
    return sum(float(line.rpartition(" ")[2]) for line in counted)


def cpu_s(pid: int) -> float:
    """Return the CPU time of process ``pid`` so far, all threads, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
