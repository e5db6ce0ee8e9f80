"""The faults: what is killed, frozen or taken away while traffic continues, and comes back.

Each begins while all workers share the partitions, in the middle of a burst; it is over
when they have caught up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from srp4ctr.streams.events.codec import Reason
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.testing.fault_injection.cluster import Cluster
from srp4ctr.testing.fault_injection.progress import Progress, administration, behind
from srp4ctr.testing.fault_injection.topic_reading import end_offsets, read_topic
from srp4ctr.testing.fault_injection.traffic import Message, Traffic

WORKERS = 3
BURST = 4000  # events at once: twice what a worker polls
_SETTLED_LAG = 400
_SETTLED_LOG_LAG = 2000  # it commits every two seconds, three topics in turn
_SETTLE_S = 240.0
_POLL_S = 0.1
_HELD_S = 3.0  # longer than a producer's and a group's pauses
_LARGE_KEY_BYTES = 5 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where the faults happen."""

    cluster: Cluster
    traffic: Traffic
    progress: Progress
    lag: int = 0
    dropped: list[Any] = field(default_factory=list)
    """Records that the topic held before a fault deleted some of them."""
    unread: set[tuple[int, int]] = field(default_factory=set)
    """Partition and offset of those that no worker had read."""
    _next: int = 0

    def settle(self, workers: int = WORKERS) -> None:
        """Return when ``workers`` share the partitions and have caught up."""
        self.wait(
            lambda: self.progress.members == workers and self.progress.lag < _SETTLED_LAG,
            f"{workers} workers to catch up",
        )

    def settle_log(self) -> None:
        """Return when the raw log has caught up."""
        group = {self.cluster.streams.log_group_id: [BEHAVIOR_EVENTS_TOPIC]}
        self.wait(
            lambda: behind(self.cluster.kafka, group) < _SETTLED_LOG_LAG,
            "the raw log to catch up",
        )

    def stop_workers(self) -> None:
        """End all workers in order."""
        for number in range(WORKERS):
            self.cluster.stop(f"worker{number}")

    def start_workers(self) -> None:
        """Start all workers; return when they are ready."""
        for number in range(WORKERS):
            self.cluster.start_worker(number)
        self.cluster.wait_ready(*range(WORKERS))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Return when ``condition`` holds; raises ``TimeoutError``."""
        deadline = time.monotonic() + _SETTLE_S
        while not condition():
            self.cluster.check_alive()
            if time.monotonic() > deadline:
                seen = f"{self.progress.members} members, {self.progress.lag} behind"
                raise TimeoutError(f"waited in vain for {what}: {seen}")
            time.sleep(_POLL_S)

    def strike(self) -> None:
        """Return in the middle of a burst that the workers have begun to store."""
        before = self.progress.stored
        self.wait(self._is_behind, "a burst to be more than the workers store at once")
        self.wait(lambda: self.progress.stored > before, "commit")
        self.lag = self.progress.lag

    def _is_behind(self) -> bool:
        if self.progress.lag < BURST / 10:
            self.traffic.burst(BURST)
            self.progress.wait_for_lag(BURST // 10, timeout_s=3.0)
        return self.progress.lag >= BURST / 10

    def a_worker(self) -> str:
        """Return a worker's name, each in turn."""
        self._next = (self._next + 1) % WORKERS
        return f"worker{self._next}"


def kill_a_worker(stage: Stage) -> None:
    """It restarts at once, under the same name."""
    name = stage.a_worker()
    stage.cluster.kill(name)
    stage.cluster.start_worker(int(name[-1]))
    stage.cluster.wait_ready(int(name[-1]))


def join(stage: Stage) -> None:
    """A fourth worker takes its share while traffic continues."""
    stage.cluster.start_worker(WORKERS)
    stage.cluster.wait_ready(WORKERS)
    stage.settle(WORKERS + 1)


def terminate(stage: Stage) -> None:
    """The fourth worker is shut down as by a deployment."""
    stage.cluster.stop(f"worker{WORKERS}")


def restart_kafka(stage: Stage, end: Callable[[Cluster, str], None]) -> None:
    """Kafka ends and restarts with its data."""
    end(stage.cluster, "kafka")
    stage.cluster.start_kafka()


def restart_store(stage: Stage, away_s: float) -> None:
    """Valkey is killed; what it has acknowledged must still be there after the restart."""
    stage.cluster.kill("store")
    time.sleep(away_s)
    stage.cluster.start_store()


def restart_bucket(stage: Stage, away_s: float) -> None:
    """The raw log's server is killed, and comes back with the objects that it had."""
    stage.cluster.kill("objects")
    stage.traffic.burst(BURST)
    time.sleep(away_s)
    stage.cluster.start_objects()
    stage.settle_log()


def hang_the_bucket(stage: Stage) -> None:
    """The raw log's server hangs past the time-out of a request, and then continues."""
    stage.cluster.freeze("objects")
    stage.traffic.burst(BURST)
    time.sleep(40)
    stage.cluster.thaw("objects")
    stage.settle_log()


def hang_the_store(stage: Stage) -> None:
    """The store hangs past the client's timeout, then executes what it was sent."""
    stage.cluster.freeze("store")
    time.sleep(10)
    stage.cluster.thaw("store")


def freeze_a_worker(stage: Stage) -> None:
    """It hangs past its session, others take over, and then it continues, too."""
    name = stage.a_worker()
    stage.cluster.freeze(name)
    stage.wait(lambda: stage.progress.members == WORKERS - 1, "a rebalance")
    stage.traffic.burst(BURST)
    time.sleep(2)
    stage.cluster.thaw(name)


def fail_over(stage: Stage, *, is_running: bool) -> None:
    """A replica that lacks the last commits takes the store's place."""
    stage.cluster.copy_store()
    before = stage.progress.stored
    stage.traffic.burst(BURST)
    stage.wait(lambda: stage.progress.stored > before + BURST // 2, "later commits")
    if not is_running:
        stage.stop_workers()
    stage.cluster.fail_over()
    if not is_running:
        stage.start_workers()


def drop_unread(stage: Stage) -> None:
    """Kafka drops records before a worker has read them, of two partitions."""
    cluster, topic = stage.cluster, BEHAVIOR_EVENTS_TOPIC
    groups = (cluster.streams.group_id, cluster.streams.log_group_id)
    topics_of = {group: [topic] for group in groups}
    stage.traffic.hold()
    time.sleep(_HELD_S)
    stage.wait(lambda: behind(cluster.kafka, topics_of) == 0, "all to be read")
    stage.stop_workers()
    stage.dropped += read_topic(cluster.kafka, topic)
    before = end_offsets(cluster.kafka, topic)
    stage.traffic.resume()
    stage.traffic.burst(BURST)
    time.sleep(_HELD_S)
    ends = end_offsets(cluster.kafka, topic)
    some = sorted(before)[:2]
    until = {each: (before[each] + ends[each]) // 2 for each in some}
    stage.dropped += read_topic(cluster.kafka, topic)
    with administration(cluster.kafka) as admin:
        admin.delete_records(until)
    for each in some:
        places = range(before[each], until[each])
        stage.unread |= {(each.partition, offset) for offset in places}
    stage.start_workers()


def backfill(stage: Stage) -> None:
    """The last records before all workers restart happened an hour ago."""
    before = stage.progress.stored
    stage.traffic.backfill(BURST)
    stage.wait(lambda: stage.progress.stored > before + BURST // 2, "a part of it")
    for number in range(WORKERS):
        stage.cluster.kill(f"worker{number}")
    stage.start_workers()


def send_a_large_key(stage: Stage) -> None:
    """A key of 5 MiB passes the topic's limit as a small compressed batch."""
    click = b'{"type":"click","event_id":"large","request_id":"r","user_id":"u1",'
    value = click + b'"item_id":"i1","occurred_at":%d}' % (time.time_ns() // 1_000_000)
    stage.traffic.send_compressed(
        Message(
            topic=BEHAVIOR_EVENTS_TOPIC,
            key=b"k" * _LARGE_KEY_BYTES,
            value=value,
            reason=Reason.WRONG_KEY,
        )
    )


JOINS = "a worker joins"
FAULTS: dict[str, Callable[[Stage], None]] = {
    "kill -9 of a worker in mid-batch, and its restart": kill_a_worker,
    JOINS: join,
    "SIGTERM of a worker in mid-batch": terminate,
    "the broker restarts": partial(restart_kafka, end=Cluster.stop),
    "kill -9 of the store under load, and its restart": partial(restart_store, away_s=0),
    "the store is away for 10 s": partial(restart_store, away_s=10),
    "a worker frozen past its session goes on (zombie)": freeze_a_worker,
}
MORE_FAULTS: dict[str, Callable[[Stage], None]] = {
    **FAULTS,
    "kill -9 of the broker, and its restart": partial(restart_kafka, end=Cluster.kill),
    "the store hangs for 10 s": hang_the_store,
    "the store fails over to an older replica": partial(fail_over, is_running=True),
    "the same while no worker runs": partial(fail_over, is_running=False),
    "Kafka drops records that no worker has read": drop_unread,
    "a backfill before all workers restart": backfill,
    "a key of 5 MiB that compresses": send_a_large_key,
}
BUCKET_FAULTS: dict[str, Callable[[Stage], None]] = {
    "kill -9 of the bucket's server, and its restart": partial(restart_bucket, away_s=0),
    "the bucket is away for a minute": partial(restart_bucket, away_s=60),
    "the bucket hangs for 40 s": hang_the_bucket,
}
ALL: dict[str, Callable[[Stage], None]] = {**MORE_FAULTS, **BUCKET_FAULTS}
