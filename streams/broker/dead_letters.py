"""Dead letters → the stream, after what they were rejected for is fixed.

In: ``behavior-events.dlq`` as a queue, read by a group of its own. Out: what the current
rules accept, on its topic, under its key, with its own timestamp; the rest at the end.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from srp4ctr.streams.broker.clients import connected
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import RejectedEvent, decode, event_key, event_topic
from srp4ctr.streams.events.schema import REJECTED_TOPIC, Event

_MAX_BATCH = 500
_POLL_MS = 500
_FETCH_BYTES = 4 * 1024 * 1024

Offsets = Mapping[TopicPartition, int]
Progress = Callable[[int, int], None]
"""Called with how many dead letters are done, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A rejected record, and its event where the current rules accept it."""

    record: Any
    reason: str
    """Why it was rejected; empty where no header says it."""
    known_at_ms: int
    """Its own timestamp in the stream; of a letter without one, the dead letter's."""
    event: Event | None
    """None: it is still to be rejected."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """How many dead letters went back, and how many stayed, by the reason they had."""

    replayed: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    """How many Kafka had deleted since the last replay: they are lost."""


def read_letter(record: Any) -> DeadLetter:
    """Decode a record of the dead-letter topic again, as of when it came to the stream.

    Its topic and key do not matter: an event says where it belongs. A truncated one is
    no event any more.
    """
    headers = dict(record.headers or ())
    sent_ms = _number(headers.get("source_timestamp"))
    known_at_ms = sent_ms if sent_ms > 0 else record.timestamp
    event: Event | RejectedEvent | None = decode(record.value, known_at_ms)
    if isinstance(event, RejectedEvent) or "truncated_from" in headers:
        event = None
    return DeadLetter(
        record=record,
        reason=headers.get("reason", b"").decode(errors="replace"),
        known_at_ms=known_at_ms,
        event=event,
    )


def replay_rejected(
    kafka: KafkaConfig, group_id: str, *, dry_run: bool, progress: Progress
) -> ReplayReport:
    """Go once through the dead letters that were there at the start; return the counts.

    ``dry_run`` publishes and commits nothing. After a crash between publication and
    commit some events come twice, and count once. One replay at a time.
    """
    with _queue(kafka, group_id) as consumer, EventPublisher(kafka) as publisher:
        report = ReplayReport(dropped=_dropped(consumer))
        ends = consumer.end_offsets(consumer.assignment())
        total = sum(_left(consumer, ends).values())
        while any(_left(consumer, ends).values()):
            for letter in _poll(consumer, ends):
                counts = report.kept if letter.event is None else report.replayed
                counts[letter.reason] += 1
                if not dry_run:
                    _publish(letter, publisher)
            if not dry_run:
                publisher.flush()
                left = _left(consumer, ends)
                done_before = {each: ends[each] - left[each] for each in ends}
                consumer.commit(
                    {s: OffsetAndMetadata(at, "", -1) for s, at in done_before.items()}
                )
            done = report.replayed.total() + report.kept.total()
            progress(done, max(done, total))
    return report


def _publish(letter: DeadLetter, publisher: EventPublisher) -> None:
    """Send the event to its topic, or the letter to the end of the queue."""
    record, event = letter.record, letter.event
    if event is not None:
        publisher.send(
            event_topic(event), record.value, event_key(event), letter.known_at_ms
        )
        return
    headers = dict(record.headers or ())
    attempts = _number(headers.get("attempts"), 1) + 1
    headers["attempts"] = str(attempts).encode()
    headers.setdefault("source_timestamp", str(letter.known_at_ms).encode())
    publisher.send(REJECTED_TOPIC, record.value, record.key, None, [*headers.items()])


@contextmanager
def _queue(kafka: KafkaConfig, group_id: str) -> Iterator[Any]:
    """Yield a consumer of all partitions, from where the group has committed.

    They are taken, not assigned by the group: a killed replay leaves no member behind for
    whose time-out the next one would wait.
    """
    with connected(
        KafkaConsumer,
        kafka,
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=_MAX_BATCH,
        max_partition_fetch_bytes=_FETCH_BYTES,
        allow_auto_create_topics=False,
    ) as consumer:
        numbers = consumer.partitions_for_topic(REJECTED_TOPIC) or ()
        consumer.assign([TopicPartition(REJECTED_TOPIC, number) for number in numbers])
        yield consumer


def _poll(consumer: Any, ends: Offsets) -> list[DeadLetter]:
    """Return some more letters; what has come behind ``ends`` stays for another replay."""
    polled = consumer.poll(timeout_ms=_POLL_MS).items()
    return [
        read_letter(record)
        for source, records in polled
        for record in records
        if record.offset < ends[source]
    ]


def _dropped(consumer: Any) -> int:
    """Return how many letters Kafka deleted before the group had read them."""
    firsts = consumer.beginning_offsets(consumer.assignment())
    read = {first: consumer.committed(first) or 0 for first in firsts}
    return sum(max(0, first - read[each]) for each, first in firsts.items())


def _left(consumer: Any, ends: Offsets) -> dict[TopicPartition, int]:
    """Return how many offsets of each partition there are up to its end."""
    return {each: max(0, end - consumer.position(each)) for each, end in ends.items()}


def _number(text: bytes | None, default: int = -1) -> int:
    try:
        return int(text or b"")
    except ValueError:
        return default
