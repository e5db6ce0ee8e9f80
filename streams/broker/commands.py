"""An operator's commands to the stream, and their progress: rebuild, erase, rewind.

In: a command or a user. Out: records on ``behavior-events``, which the worker that owns
the partition executes in order: rows have one writer, and no worker has to be stopped.
"""

import time
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient

from srp4ctr.errors import MistakeError
from srp4ctr.streams.broker.clients import connected
from srp4ctr.streams.broker.topics import beginning_offsets
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import (
    COMMAND_KEY,
    RejectedEvent,
    decode,
    encode,
    event_key,
)
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Forget, Rebuild, now_ms

Offsets = Mapping[TopicPartition, int]
_POLL_S = 0.2


def request_rebuild(
    kafka: KafkaConfig, since_ms: int, partitions: Collection[int] | None = None
) -> Offsets:
    """Request a rebuild of ``partitions``, or all; return the command's offset in each.

    Raises ``MistakeError`` where there is no such topic.
    """
    command = Rebuild(event_id=uuid.uuid4().hex, since_ms=since_ms)
    with connected(KafkaConsumer, kafka, enable_auto_commit=False) as consumer:
        numbers = sorted(consumer.partitions_for_topic(BEHAVIOR_EVENTS_TOPIC) or ())
    if not numbers:
        raise MistakeError(
            f"the broker has no topic {BEHAVIOR_EVENTS_TOPIC}: "
            "`srp4ctr stream run` makes it"
        )
    payload = encode(command)
    partitions = numbers if partitions is None else sorted(partitions)
    return _sent(
        kafka, [{"key": COMMAND_KEY, "value": payload, "partition": n} for n in partitions]
    )


def request_erasure(kafka: KafkaConfig, user_id: str) -> Offsets:
    """Request erasure of all that ``user_id`` did until now; return the request's offset.

    Raises ``MistakeError`` for what cannot be a user's id.
    """
    at_ms = now_ms()
    event = Forget(event_id=uuid.uuid4().hex, user_id=user_id, occurred_at=at_ms)
    payload = encode(event)
    if isinstance(refused := decode(payload, at_ms), RejectedEvent):
        raise MistakeError(f"{user_id!r:.80} is no user's id: {refused.detail}")
    return _sent(kafka, [{"key": event_key(event), "value": payload}])


def rewind(kafka: KafkaConfig, group_id: str, offsets: Mapping[int, int]) -> None:
    """Let the stopped group read ``behavior-events`` again from ``offsets``, by partition.

    Raises ``MistakeError`` while the group has members, and where Kafka no longer holds an
    offset.
    """
    with connected(KafkaAdminClient, kafka) as admin:
        members = admin.describe_groups([group_id])[group_id]["members"]
    if members:
        raise MistakeError(
            f"{len(members)} workers of group {group_id} are running: stop them, then "
            "repeat the command"
        )
    for partition, first in beginning_offsets(kafka, BEHAVIOR_EVENTS_TOPIC).items():
        if offsets.get(partition, first) < first:
            raise MistakeError(
                f"Kafka no longer holds offset {offsets[partition]} of partition "
                f"{partition}, its first one is {first}: run `srp4ctr stream rebuild` "
                "instead, with the workers running"
            )
    arguments = {"group_id": group_id, "enable_auto_commit": False}
    with connected(KafkaConsumer, kafka, **arguments) as consumer:
        places = {TopicPartition(BEHAVIOR_EVENTS_TOPIC, p): at for p, at in offsets.items()}
        consumer.assign(list(places))
        consumer.commit({s: OffsetAndMetadata(at, "", -1) for s, at in places.items()})


def wait_until_read(
    kafka: KafkaConfig,
    group_id: str,
    offsets: Offsets,
    report: Callable[[int], None],
    timeout_s: float,
) -> int:
    """Return how many of ``offsets`` the group has committed: all, or some at the timeout.

    Calls ``report`` with how many more there are.
    """
    deadline = time.monotonic() + timeout_s
    done: set[TopicPartition] = set()
    arguments = {"group_id": group_id, "enable_auto_commit": False}
    with connected(KafkaConsumer, kafka, **arguments) as consumer:
        while len(done) < len(offsets) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            left = offsets.keys() - done
            read = {s for s in left if (consumer.committed(s) or 0) > offsets[s]}
            report(len(read))
            done |= read
    return len(done)


def _sent(kafka: KafkaConfig, records: list[dict[str, Any]]) -> Offsets:
    arguments = {"acks": "all", "enable_idempotence": True}
    with connected(KafkaProducer, kafka, **arguments) as producer:
        sent = [producer.send(BEHAVIOR_EVENTS_TOPIC, **record) for record in records]
        found = [each.get(timeout=30) for each in sent]
    return {TopicPartition(each.topic, each.partition): each.offset for each in found}
