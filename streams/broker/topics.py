"""Creates the project's topics, once, and returns what groups have committed of them."""

from collections.abc import Collection
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError, TopicAuthorizationFailedError

from srp4ctr.errors import MistakeError
from srp4ctr.streams.broker.clients import connected
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import MAX_CLOCK_SKEW_MS
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    REJECTED_TOPIC,
)

# Brokers delete by the records' timestamps, which a backfill sets to when things
# happened: with the usual seven days a year's history would be gone when it arrives.
_KEEP = {"retention.ms": "-1"}
# Far above an event's size: a producer's mistake should become a dead letter, with its
# reason, rather than be refused by a broker that does not say whose event it was.
_MAX_MESSAGE_BYTES = 2 * 1024 * 1024
# An event is checked against its record's time, and training knows it from then on: so a
# record may be no further ahead than an event's own clock.
_NO_FUTURE = {"message.timestamp.after.max.ms": str(MAX_CLOCK_SKEW_MS)}
_MAX_REJECTED_BYTES = 4 * 1024 * 1024  # the largest message plus headers must fit
_TOPIC_SETTINGS = {
    BEHAVIOR_EVENTS_TOPIC: {
        **_KEEP,
        **_NO_FUTURE,
        "max.message.bytes": str(_MAX_MESSAGE_BYTES),
    },
    ITEMS_TOPIC: {**_NO_FUTURE, "cleanup.policy": "compact"},
    REJECTED_TOPIC: {**_KEEP, "max.message.bytes": str(_MAX_REJECTED_BYTES)},
    LABELS_TOPIC: _KEEP,
}


PUBLISHED_TOPICS = (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC)
"""The topics that a producer writes; under ACLs it sees no others."""


def ensure_topics(
    kafka: KafkaConfig, names: Collection[str] = tuple(_TOPIC_SETTINGS)
) -> list[str]:
    """Create those of ``names`` that are missing and return them; others stay as they are.

    Raises ``MistakeError`` where the broker does not let us create one.
    """
    with connected(KafkaAdminClient, kafka) as admin:
        existing = set(admin.list_topics())
        missing = [name for name in names if name not in existing]
        for name in missing:
            settings = _TOPIC_SETTINGS[name]
            topic = NewTopic(
                name, kafka.partitions, kafka.replication, topic_configs=settings
            )
            try:
                with suppress(TopicAlreadyExistsError):  # another process was faster
                    admin.create_topics([topic])
            except TopicAuthorizationFailedError:
                raise MistakeError(
                    f"the topic {name} is missing, or not ours to see, and "
                    f"{kafka.sasl_username or 'a client without a name'} may create none: "
                    "`srp4ctr stack init` as Kafka's admin"
                ) from None
        return missing


def committed_offsets(kafka: KafkaConfig, group_id: str, topic: str) -> dict[int, int]:
    """Return the next offset of each partition of ``topic`` that the group has committed.

    Raises ``OutageError`` while the group's coordinator is still loading; aiokafka returns
    then that nothing was committed.
    """
    with connected(KafkaAdminClient, kafka) as admin:
        found = admin.list_group_offsets([group_id])[group_id]
    return {
        source.partition: at.offset
        for source, at in found.items()
        if source.topic == topic and at.offset >= 0
    }


def beginning_offsets(kafka: KafkaConfig, topic: str) -> dict[int, int]:
    """Return the offset of the first record of each partition; {} without the topic."""
    with connected(KafkaConsumer, kafka, enable_auto_commit=False) as consumer:
        numbers = consumer.partitions_for_topic(topic) or ()
        first = consumer.beginning_offsets([TopicPartition(topic, n) for n in numbers])
    return {source.partition: at for source, at in first.items()}


def end_offsets(kafka: KafkaConfig, topic: str) -> dict[int, int]:
    """Return the offset behind the last record of each partition; {} without the topic."""
    with connected(KafkaConsumer, kafka, enable_auto_commit=False) as consumer:
        numbers = consumer.partitions_for_topic(topic) or ()
        ends = consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
    return {source.partition: end for source, end in ends.items()}
