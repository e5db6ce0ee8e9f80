"""The stream worker's consumer group → up to when every due label has been published.

In: the group's members, its committed offsets and the topic's ends. Out: a moment of
event time, or None. A worker publishes a click at once and a missing click only while it
runs and has read everything: without one, silence says nothing about what is due, and
settling by the clock would show the last label window as all clicked.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC

LOG = logging.getLogger(__name__)
# A worker lets a quiet partition's time run two seconds behind the clock, and flushes
# every 0.2 s: no label for so long means that there is none up to so long ago.
CAUGHT_UP_MS = 3000
_TIMEOUT_MS = 4000  # the reader waits meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProgress:
    """How far the worker's group has come; offsets are by partition."""

    is_running: bool
    committed: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def is_caught_up(self) -> bool:
        """Whether a worker runs and has stored all that the topic holds."""
        return self.is_running and all(
            self.committed.get(partition, 0) == end for partition, end in self.ends.items()
        )

    @property
    def lag(self) -> int:
        """Records that are on the topic and not stored yet."""
        return sum(
            end - self.committed.get(partition, 0) for partition, end in self.ends.items()
        )


AWAY = WorkerProgress(is_running=False, committed={}, ends={})


class QuietSpell:
    """How long no label and no event has come while a worker had nothing left to read."""

    def __init__(self) -> None:
        self._ends: Mapping[int, int] | None = None
        self._since_ms = 0

    def interrupt(self) -> None:
        """Begin anew: a label has come, or the broker has gone."""
        self._ends = None

    def observe(self, progress: WorkerProgress, now_ms: int) -> int | None:
        """Return up to when every due label has come; None while nobody knows.

        A new event interrupts too: where events come, their time closes the windows, and
        it may be a backfill's.
        """
        if not progress.is_caught_up:
            self._ends = None
        elif progress.ends != self._ends:
            self._ends, self._since_ms = progress.ends, now_ms
        elif now_ms - self._since_ms >= CAUGHT_UP_MS:
            return now_ms - CAUGHT_UP_MS
        return None


class WorkerWatch:
    """Asks the broker for the progress of the worker's consumer group."""

    def __init__(self, kafka: KafkaConfig, group_id: str) -> None:
        self._kafka, self._group_id = kafka, group_id
        self._admin: Any = None  # made at the first question

    def progress(self) -> WorkerProgress:
        """Return the group's progress; ``AWAY`` where the broker does not say."""
        try:
            return self._ask()
        except KafkaError as error:  # asked again soon; until then nothing is settled
            LOG.warning("progress of group %s: %s", self._group_id, error)
            self.close()
            return AWAY

    def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _ask(self) -> WorkerProgress:
        if self._admin is None:
            self._admin = KafkaAdminClient(
                **client_arguments(self._kafka),
                bootstrap_timeout_ms=_TIMEOUT_MS,
                request_timeout_ms=_TIMEOUT_MS,
            )
        group = self._admin.describe_groups([self._group_id])[self._group_id]
        # Otherwise nobody is there, or partitions are changing hands.
        is_stable = group["group_state"] == "Stable" and bool(group["members"])
        (topic,) = self._admin.describe_topics([BEHAVIOR_EVENTS_TOPIC])
        partitions = [
            TopicPartition(BEHAVIOR_EVENTS_TOPIC, each["partition_index"])
            for each in topic["partitions"]
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
