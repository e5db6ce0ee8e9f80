"""The stream worker's consumer group → its lag, and up to when labels are complete.

In: the group's members, its committed offsets and the topic's end offsets. Out: a moment of
event time, or None. A worker publishes a click at once, and a missing click only while it
runs and has read everything. Without a running worker, settling by the clock would show the
last label window as all clicked.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from srp4ctr.errors import OutageError
from srp4ctr.monitoring.collector.topic_readers import broker_errors
from srp4ctr.retries import RETRIES
from srp4ctr.streams.broker.clients import client_arguments, opened
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC

LOG = logging.getLogger(__name__)
# A worker lets an idle partition's time run two seconds behind the clock, and flushes
# every 0.2 s: without a label for this long, all labels up to this long ago are published.
CAUGHT_UP_MS = 3000
_TIMEOUT_MS = 4000  # the reader blocks meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProgress:
    """Offsets of the worker's group, by partition."""

    is_running: bool
    committed: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def is_caught_up(self) -> bool:
        """Whether a worker runs and has stored every record of the topic."""
        return self.is_running and all(
            self.committed.get(partition, 0) == end for partition, end in self.ends.items()
        )

    @property
    def lag(self) -> int:
        """Records of the topic that are not stored yet."""
        return sum(
            end - self.committed.get(partition, 0) for partition, end in self.ends.items()
        )


UNREACHABLE = WorkerProgress(is_running=False, committed={}, ends={})


class IdlePeriod:
    """How long no label and no event has arrived while the worker was caught up."""

    def __init__(self) -> None:
        self._ends: Mapping[int, int] | None = None
        self._since_ms = 0

    def reset(self) -> None:
        """Start again: a label has arrived, or the connection is lost."""
        self._ends = None

    def observe(self, progress: WorkerProgress, now_ms: int) -> int | None:
        """Return the time up to which every due label has arrived; None if unknown.

        A new event resets the period too: events close windows by their own time, and they
        may be a backfill's.
        """
        if not progress.is_caught_up:
            self._ends = None
        elif progress.ends != self._ends:
            self._ends, self._since_ms = progress.ends, now_ms
        elif now_ms - self._since_ms >= CAUGHT_UP_MS:
            return now_ms - CAUGHT_UP_MS
        return None


class WorkerProgressReader:
    """Reads the progress of the worker's consumer group from the broker."""

    def __init__(self, kafka: KafkaConfig, group_id: str) -> None:
        self._kafka, self._group_id = kafka, group_id
        self._admin: Any = None  # made by the first read

    def read(self) -> WorkerProgress:
        """Return the group's progress; ``UNREACHABLE`` if the broker does not answer.

        Until the next read, which counts as a retry then, nothing is settled.
        """
        try:
            with broker_errors(f"progress of group {self._group_id}"):
                return self._query()
        except OutageError as error:
            LOG.warning("%s", error)
            RETRIES.labels("read_consumer_lag").inc()
            self.close()
            return UNREACHABLE

    def close(self) -> None:
        """Close the connections; the next read opens new ones."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _query(self) -> WorkerProgress:
        if self._admin is None:
            self._admin = opened(
                KafkaAdminClient,
                **client_arguments(self._kafka),
                bootstrap_timeout_ms=_TIMEOUT_MS,
                request_timeout_ms=_TIMEOUT_MS,
            )
        group = self._admin.describe_groups([self._group_id])[self._group_id]
        # Otherwise the group has no member, or rebalances.
        is_stable = group["group_state"] == "Stable" and bool(group["members"])
        (topic,) = self._admin.describe_topics([BEHAVIOR_EVENTS_TOPIC])
        partitions = [
            TopicPartition(BEHAVIOR_EVENTS_TOPIC, partition["partition_index"])
            for partition in topic["partitions"]
        ]
        ends = self._admin.list_partition_offsets(
            dict.fromkeys(partitions, OffsetSpec.LATEST)
        )
        committed = self._admin.list_group_offsets([self._group_id])[self._group_id]
        return WorkerProgress(
            is_running=is_stable and bool(partitions),
            committed={
                each.partition: at.offset
                for each, at in committed.items()
                if each.topic == BEHAVIOR_EVENTS_TOPIC
            },
            ends={each.partition: at.offset for each, at in ends.items()},
        )
