"""Which partitions this monitor reads, where several monitors share them.

In: one consumer group on Apache Kafka, or file locks of the monitors on one machine (the
embedded broker blocks a group whose members were killed). Out: ``owned``, which another
thread keeps current, so that heavy work never costs a monitor its partitions.
"""

import fcntl
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.collector.topic_readers import broker_errors
from srp4ctr.streams.broker.clients import opened, reachable
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import LABELS_TOPIC

LOG = logging.getLogger(__name__)
# A dead member's partitions are free after this time; the broker takes 6 s or more.
SESSION_MS = 10_000
HEARTBEAT_MS = 2_000
# Paused for longer, a member may have lost its partitions without notice: its last
# heartbeat was up to ``HEARTBEAT_MS`` before.
MAX_GAP_S = 5.0
MAX_MONITORS = 64  # on one machine
_POLL_S = 0.2
_PARTITIONS_AGE_S = 10.0  # a topic may grow
_NONE: frozenset[int] = frozenset()


class PartitionShare(ABC):
    """The partitions of this monitor, kept current by a thread until ``close``."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._owned = _NONE
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="partitions", daemon=True)

    def start(self) -> None:
        """Begin to take partitions."""
        self._thread.start()

    def owned(self) -> frozenset[int]:
        """Return the partitions that are this monitor's now.

        Raises ``MistakeError`` where the broker refuses us.
        """
        if self._error:
            raise self._error
        return self._owned

    def close(self) -> None:
        """Give the partitions back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (OutageError, OSError) as error:  # the next turn tries again
                LOG.warning("partitions are given back: %s", error)
            except BaseException as error:
                self._error = error  # for the thread that reads
                return
            finally:
                self._take(_NONE)
            self._stop.wait(1.0)

    def _take(self, partitions: Iterable[int]) -> None:
        owned = frozenset(partitions)
        if owned != self._owned:
            LOG.info("partitions of this monitor: %s", sorted(owned) or "none")
        self._owned = owned

    @abstractmethod
    def _follow(self) -> None:
        """Take partitions until ``_stop`` is set; return to begin again."""


class FileLocks(PartitionShare):
    """A fair share of the partitions, by locks of files in a folder of this machine.

    The kernel frees the locks of a process immediately when it ends. A process that is
    paused keeps its partitions.
    """

    def __init__(self, folder: Path, count: Callable[[], int]) -> None:
        """``count`` returns the number of partitions, 0 if the topic is missing."""
        super().__init__()
        self._folder, self._count = folder, count
        self._held: dict[int, int] = {}  # partition → the descriptor of its lock

    def _follow(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        member, partitions, due_s = self._join(), 0, 0.0
        try:
            while not self._stop.is_set():
                if time.monotonic() >= due_s:
                    partitions = self._count()
                    due_s = time.monotonic() + _PARTITIONS_AGE_S
                self._balance(partitions, member)
                self._take(self._held)
                self._stop.wait(_POLL_S)
        finally:
            for each in list(self._held):
                self._release(each)
            os.close(self._members[member])

    def _join(self) -> int:
        """Take the first free place among the monitors; return its number."""
        self._members: dict[int, int] = {}
        for number in range(MAX_MONITORS):
            descriptor = self._locked(f"monitor-{number}.lock")
            if descriptor is not None:
                self._members[number] = descriptor
                return number
        raise MistakeError(
            f"{self._folder} has {MAX_MONITORS} monitors already: end some of them"
        )

    def _balance(self, partitions: int, member: int) -> None:
        """Release what is above the fair share, or take what is free below it."""
        alive = [each for each in range(MAX_MONITORS) if self._is_alive(each, member)]
        each_has, remaining = divmod(partitions, len(alive))
        fair = each_has + (alive.index(member) < remaining)
        for surplus in sorted(self._held)[fair:]:
            self._release(surplus)
        for free in range(partitions):
            if len(self._held) < fair and free not in self._held:
                descriptor = self._locked(f"partition-{free}.lock")
                if descriptor is not None:
                    self._held[free] = descriptor

    def _is_alive(self, number: int, member: int) -> bool:
        if number == member:
            return True
        path = self._folder / f"monitor-{number}.lock"
        if not path.exists():
            return False
        # Shared, so that two monitors that look at once do not count each other's look.
        descriptor = self._locked(path.name, fcntl.LOCK_SH)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def _release(self, partition: int) -> None:
        descriptor = self._held.pop(partition)
        self._take(self._held)  # before another one may take it
        os.close(descriptor)

    def _locked(self, name: str, kind: int = fcntl.LOCK_EX) -> int | None:
        """Return the descriptor of the locked file; None if another process has it."""
        descriptor = os.open(self._folder / name, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor


class ConsumerGroup(PartitionShare):
    """The partitions that the broker assigns to this member of a consumer group.

    The member reads no record: readers of the monitor do. A process that was paused has no
    partition until the broker has assigned some again.
    """

    def __init__(self, kafka: KafkaConfig, group_id: str) -> None:
        super().__init__()
        self._kafka, self._group_id = kafka, group_id
        self._beat_s = time.monotonic()
        self._lock = threading.Lock()

    def owned(self) -> frozenset[int]:
        """Return the partitions; none if this process was paused since the last beat."""
        owned = super().owned()
        with self._lock:
            return _NONE if self._is_late() else owned

    def _is_late(self) -> bool:
        return time.monotonic() - self._beat_s > MAX_GAP_S

    def _follow(self) -> None:
        what = f"group {self._group_id}"
        where = reachable(self._kafka)
        with broker_errors(what):
            consumer = opened(
                KafkaConsumer,
                **where,
                group_id=self._group_id,
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=HEARTBEAT_MS,
                max_poll_interval_ms=SESSION_MS,
                enable_auto_commit=False,
                auto_offset_reset="latest",
                metadata_max_age_ms=5000,
                allow_auto_create_topics=False,
            )
            with closing(consumer):
                consumer.subscribe([LABELS_TOPIC], listener=_Listener(self, consumer))
                self._beat_s = time.monotonic()
                while not self._stop.is_set() and self._beat():
                    consumer.poll(timeout_ms=int(_POLL_S * 1000), max_records=1)
                self._take(_NONE)  # before the broker may give them to another one

    def _beat(self) -> bool:
        """Note that this process runs; return False if it was paused for too long."""
        with self._lock:
            if self._is_late():
                # Under the lock: no other thread sees the old partitions as current.
                self._take(_NONE)
                LOG.warning("this process was paused: it joins %s again", self._group_id)
                return False
            self._beat_s = time.monotonic()
        return True

    def assign(self, partitions: Iterable[int]) -> None:
        """Take exactly ``partitions``: the broker's answer."""
        with self._lock:
            if not self._is_late():
                self._take(partitions)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes assignments on. The last one stays until the next: no other member has it."""

    def __init__(self, share: ConsumerGroup, consumer: Any) -> None:
        self._share, self._consumer = share, consumer

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        pass

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._consumer.pause(*self._consumer.assignment())
        mine = (each.partition for each in self._consumer.assignment())
        self._share.assign(mine)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._share.assign(())


def count_partitions(kafka: KafkaConfig) -> int:
    """Return the number of partitions of the topic of labels; 0 if it is missing."""
    where = reachable(kafka)
    with broker_errors(LABELS_TOPIC), closing(opened(KafkaConsumer, **where)) as consumer:
        return len(consumer.partitions_for_topic(LABELS_TOPIC) or ())
