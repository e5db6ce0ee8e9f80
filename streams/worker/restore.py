"""A raw log → a new, empty Kafka: what a lost broker held, as it was known then.

In: the log of ``behavior-events`` and ``items``. Out: the same events under the same keys
and timestamps, in the order of each partition. Labels are not published: workers make
them again. Offsets are new, so the store must be empty and the log's folder new.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from srp4ctr.errors import ArtifactError, MistakeError
from srp4ctr.streams.broker.producer import BACKFILL_HEADERS, EventPublisher
from srp4ctr.streams.broker.topics import end_offsets, ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import RESTORED_HEADER, encode, event_key, event_topic
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, Event
from srp4ctr.streams.raw_log.delta_tables import Log, opened, partitions_of, read_rows
from srp4ctr.streams.raw_log.log_tables import event_of, update_of

_HEADERS = (*BACKFILL_HEADERS, (RESTORED_HEADER, b"1"))
TOPICS = (ITEMS_TOPIC, BEHAVIOR_EVENTS_TOPIC)  # items first: events are of them


def restore(
    kafka: KafkaConfig, log_dir: Log, progress: Callable[[int], None] = lambda _: None
) -> Counter[str]:
    """Publish all that is in ``log_dir`` and return how many records of each topic.

    Calls ``progress`` with how many there are so far. Raises ``MistakeError`` for a folder
    that is no raw log, or where a topic holds records: everything would count twice.
    """
    if not any(opened(log_dir, topic) for topic in TOPICS):
        raise MistakeError(f"{log_dir} is no raw log: it has none of {', '.join(TOPICS)}")
    ensure_topics(kafka)
    for topic in TOPICS:
        if held := sum(end_offsets(kafka, topic).values()):
            raise MistakeError(
                f"{topic} has had {held:,} records: a log is restored into empty topics"
            )
    done: Counter[str] = Counter()
    with EventPublisher(kafka) as publisher:
        for event, known_ms in logged(log_dir):
            topic = event_topic(event)
            key, payload = event_key(event), encode(event)
            publisher.send(topic, payload, key, known_ms, _HEADERS)
            done[topic] += 1
            progress(done.total())
    return done


def logged(log_dir: Log) -> Iterator[tuple[Event, int]]:
    """Yield the log's events and when each became known, partition by partition."""
    for topic in TOPICS:
        for partition in partitions_of(log_dir, topic):
            for rows in read_rows(log_dir, topic, partition):
                for row in rows:
                    yield _event(topic, row), row["created_at"]


def _event(topic: str, row: dict[str, object]) -> Event:
    try:
        return update_of(row) if topic == ITEMS_TOPIC else event_of(row).event
    except msgspec.ValidationError as error:  # of another release's schema
        place = f"{topic} {row['partition']}@{row['offset']}"
        raise ArtifactError(f"{place}: {error}") from error
