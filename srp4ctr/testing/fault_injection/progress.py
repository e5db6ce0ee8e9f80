"""Samples a consumer group's commits, and for how long a partition had none."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from srp4ctr.streams.config import KafkaConfig

_EVERY_S = 0.1


@dataclass(slots=True)
class Progress:
    """Samples lag and commits in a thread of its own, from ``start`` until ``end``."""

    kafka: KafkaConfig
    group_id: str
    topic: str
    longest_stall_s: float = 0.0
    """Of any partition: without a commit although there was something to commit."""
    members: int = 0
    """How many share the partitions; 0 during a rebalance."""
    _committed: dict[int, int] = field(default_factory=dict)
    _ends: dict[int, int] = field(default_factory=dict)
    _moved_at: dict[int, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _failure: Exception | None = None

    @property
    def lag(self) -> int:
        """Records that the group has not committed, as of the last sample.

        Raises ``RuntimeError`` if there will be no other sample.
        """
        if self._failure is not None:
            raise RuntimeError("the sampling of commits has failed") from self._failure
        return sum(end - self._committed.get(p, 0) for p, end in [*self._ends.items()])

    @property
    def stored(self) -> int:
        """Records that the group has committed, as of the last sample."""
        return sum(self._committed.values())

    def start(self) -> None:
        """Begin to sample."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Stop sampling."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def wait_for_lag(self, records: int, timeout_s: float) -> None:
        """Return when the group is ``records`` behind, or after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while self.lag < records and time.monotonic() < deadline:
            time.sleep(_EVERY_S / 2)

    def take_longest_stall(self) -> float:
        """Return the longest stall since the last call."""
        longest, self.longest_stall_s = self.longest_stall_s, 0.0
        return longest

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            try:
                with administration(self.kafka) as admin:
                    while not self._ended.wait(_EVERY_S):
                        self._sample(admin)
                        self._measure()
            except (KafkaError, OSError):  # the broker is down: that is a stall, too
                self.members = 0
                self._measure()
            except Exception as error:
                self._failure = error
                return

    def _sample(self, admin: Any) -> None:
        self.members = members_of(admin, self.group_id)
        self._ends = {
            source.partition: end
            for source, end in _ends(admin, self.kafka.partitions, self.topic).items()
        }
        for source, offset in _committed(admin, self.group_id).items():
            if offset > self._committed.get(source.partition, -1):
                self._committed[source.partition] = offset
                self._moved_at[source.partition] = time.monotonic()

    def _measure(self) -> None:
        now = time.monotonic()
        for number, end in self._ends.items():
            if self._committed.get(number, 0) >= end:
                self._moved_at[number] = now
            stall_s = now - self._moved_at.setdefault(number, now)
            self.longest_stall_s = max(self.longest_stall_s, stall_s)


@contextmanager
def administration(kafka: KafkaConfig) -> Iterator[Any]:
    """Yield a client that gives up soon, so that its caller sees time pass."""
    admin = KafkaAdminClient(
        bootstrap_servers=kafka.bootstrap,
        request_timeout_ms=3000,
        reconnect_backoff_max_ms=500,
        bootstrap_timeout_ms=3000,
    )
    try:
        yield admin
    finally:
        admin.close()


def members_of(admin: Any, group_id: str) -> int:
    """Return how many share the partitions; 0 during a rebalance."""
    group = admin.describe_groups([group_id])[group_id]
    return len(group["members"]) if group["group_state"] == "Stable" else 0


def lag_of(admin: Any, partitions: int, topics_of: Mapping[str, Sequence[str]]) -> int:
    """Return how many records of their topics the groups have not committed."""
    lag = 0
    for group_id, topics in topics_of.items():
        committed = _committed(admin, group_id)
        for topic in topics:
            ends = _ends(admin, partitions, topic)
            lag += sum(end - committed.get(source, 0) for source, end in ends.items())
    return lag


def behind(kafka: KafkaConfig, topics_of: Mapping[str, Sequence[str]]) -> int:
    """Return the same by a client of its own."""
    with administration(kafka) as admin:
        return lag_of(admin, kafka.partitions, topics_of)


def _committed(admin: Any, group_id: str) -> dict[TopicPartition, int]:
    offsets = admin.list_group_offsets([group_id])[group_id]
    return {source: each.offset for source, each in offsets.items()}


def _ends(admin: Any, partitions: int, topic: str) -> dict[TopicPartition, int]:
    """Return where the next record of each partition of ``topic`` will be."""
    sources = [TopicPartition(topic, number) for number in range(partitions)]
    ends = admin.list_partition_offsets(dict.fromkeys(sources, OffsetSpec.LATEST))
    return {source: end.offset for source, end in ends.items()}
