"""Bytes on Kafka ↔ events: decode, validate, and say why a message is rejected.

In: the raw value of a record. Out: an event, or ``RejectedEvent`` with a reason from
a short fixed list (it becomes a metric's label) and a sentence for a person.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from srp4ctr import tracing
from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    FORGOTTEN_USER,
    GOLDEN_USERS,
    ITEMS_TOPIC,
    TOTAL_ITEM,
    Event,
    Id,
    ItemUpdate,
    Rebuild,
    UserEvent,
)

MAX_MESSAGE_BYTES = 64 * 1024  # an event of this schema with long ids is under 8 kB
# 1e11 is March 1973 in milliseconds and the year 5138 in seconds.
MIN_OCCURRED_AT_MS = 100_000_000_000
MAX_OCCURRED_AT_MS = 4_102_444_800_000  # in 2100: a producer also sets the time of sending
MAX_CLOCK_SKEW_MS = 5 * 60 * 1000  # a phone's clock may be minutes ahead, not hours
_YEAR_S = 365 * 24 * 3600
# No producer's record has it: an event's key is its user, anything else is rejected.
COMMAND_KEY = b"\0command"
# A record with this header is of the past: its age says nothing of the stream.
BACKFILL_HEADER = "backfill"
# A record with this header is of a raw log, which has rows of ``FORGOTTEN_USER``.
RESTORED_HEADER = "restored"


class Reason(StrEnum):
    """Why a message was rejected."""

    TOO_LARGE = "too_large"
    BROKEN_JSON = "broken_json"
    UNKNOWN_TYPE = "unknown_type"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    TIME_IN_SECONDS = "time_in_seconds"
    TIME_IN_FUTURE = "time_in_future"
    WRONG_TOPIC = "wrong_topic"
    WRONG_KEY = "wrong_key"
    WRONG_PARTITION = "wrong_partition"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedEvent:
    """A message that is not an event: the reason, and a sentence that says what to do."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as it was read from Kafka; aiokafka's may stand in: it has these names."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """UTC milliseconds; -1 where the producer's protocol is too old to have one."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def place_of(source: Any, offset: int) -> dict[str, Any]:
    """Return where a record of ``source`` is, as the ``extra`` fields of a log line."""
    return {"topic": source.topic, "partition": source.partition, "offset": offset}


@contextmanager
def located(
    records: Sequence[Record], process: Callable[[Record], object] | None = None
) -> Iterator[None]:
    """Name in the block's error, and log, the record that it comes from.

    That is the first of ``records`` at which ``process``, which changes nothing, fails;
    else any of them.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ConnectionError):  # no record's fault
            raise
        bad = _first_failing(records, process) if process else None
        first, last = (bad, bad) if bad else (records[0], records[-1])
        where = f"{first.topic}, partition {first.partition}, offset {first.offset}"
        if last is not first:
            where += f" to partition {last.partition}, offset {last.offset}"
        error.add_note(f"at {where}")
        extra = place_of(first, first.offset)
        _log.error("cannot process the record at %s: %r", where, error, extra=extra)
        raise


@contextmanager
def noted(where: str) -> Iterator[None]:
    """Add ``where`` to the block's error, unless it is an outage's."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, ConnectionError):
            error.add_note(f"at {where}")
        raise


def _first_failing(
    records: Iterable[Record], process: Callable[[Record], object]
) -> Record | None:
    for record in records:
        try:
            process(record)
        except Exception:
            return record
    return None


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event and where the log holds it."""

    event: UserEvent
    offset: int
    known_at_ms: int
    """The record's timestamp: when the event became known."""
    is_backfilled: bool = False
    """Its record has ``BACKFILL_HEADER``: it was published long after it happened."""
    traceparent: str = ""
    """Of its publisher's trace: see ``srp4ctr/tracing.py``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecord:
    """A record that is not an event, with the reason."""

    record: Record
    rejected: RejectedEvent


_EVENT_TYPES = ("behavior", "click", "forget", "impression", "item", "user")
_decoder = msgspec.json.Decoder(Event)
_command_decoder = msgspec.json.Decoder(Rebuild)
_encoder = msgspec.json.Encoder()
_log = logging.getLogger(__name__)
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(event: Event | Rebuild) -> bytes:
    """Return ``event`` as one line of JSON."""
    return _encoder.encode(event)


def checked(event: Event, now_ms: int) -> Event:
    """Return ``event`` as readers will decode it.

    Raises ``MistakeError`` for what would become a dead letter.
    """
    try:
        read = decode(encode(event), now_ms)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MistakeError(f"{Reason.INVALID_FIELD}: {error}") from error
    if isinstance(read, RejectedEvent):
        raise MistakeError(f"{read.reason}: {read.detail}")
    return read


def decode_record(record: Record) -> LoggedEvent | Rebuild | RejectedRecord:
    """Return the event or command of a ``behavior-events`` record, or why it has none."""
    if record.key == COMMAND_KEY and record.value is not None:
        with suppress(*_DECODE_ERRORS):
            return _command_decoder.decode(record.value)
    event = decode_published(record)
    if isinstance(event, RejectedEvent):
        return RejectedRecord(record=record, rejected=event)
    assert not isinstance(event, ItemUpdate)  # it belongs on another topic
    headers = dict(record.headers)
    return LoggedEvent(
        event=event,
        offset=record.offset,
        known_at_ms=record.timestamp,
        is_backfilled=BACKFILL_HEADER in headers,
        # A header may be there without a value.
        traceparent=(headers.get(tracing.HEADER) or b"").decode("ascii", "replace"),
    )


def decode_published(record: Record) -> Event | RejectedEvent:
    """Return the event of a record, or why it does not belong on its topic.

    A record under another key than its user's would spread one user over partitions:
    an impression would miss its click, and a counter its events.
    """
    if record.topic == ITEMS_TOPIC and record.value is None and record.key:
        return _deleted(record, record.key)
    is_restored = any(name == RESTORED_HEADER for name, _ in record.headers)
    event = decode(record.value, record.timestamp, is_restored=is_restored)
    if isinstance(event, RejectedEvent):
        return event
    if (topic := event_topic(event)) != record.topic:
        detail = f"a message of type {type_of(event)} belongs on topic {topic}"
        return RejectedEvent(reason=Reason.WRONG_TOPIC, detail=detail)
    if event_key(event) != record.key:
        field = "item_id" if isinstance(event, ItemUpdate) else "user_id"
        detail = f"the record's key is {record.key!r:.80}; it must be the event's {field}"
        return RejectedEvent(reason=Reason.WRONG_KEY, detail=detail)
    return event


def decode(
    payload: bytes | None, now_ms: int, *, is_restored: bool = False
) -> Event | RejectedEvent:
    """Return the event in ``payload``, or why there is none; never raises.

    ``now_ms`` is when the message became known (its record's timestamp and no reader's
    clock, so that all readers agree): an event more than five minutes after it is
    rejected. Only one that ``is_restored`` may be of an erased user.
    """
    if payload is None:
        return RejectedEvent(reason=Reason.BROKEN_JSON, detail="the message is empty")
    if len(payload) > MAX_MESSAGE_BYTES:
        detail = f"{len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are accepted"
        return RejectedEvent(reason=Reason.TOO_LARGE, detail=detail)
    try:
        event = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        return _refused(str(error))
    except _DECODE_ERRORS as error:
        return RejectedEvent(reason=Reason.BROKEN_JSON, detail=str(error))
    return _check_ids(event, is_restored) or _check_time(event, now_ms) or event


def _deleted(record: Record, key: bytes) -> ItemUpdate | RejectedEvent:
    """Return the update that a tombstone is: the item has nothing, and is not available."""
    try:
        update = ItemUpdate(
            event_id=f"deleted-{record.partition}-{record.offset}",
            item_id=msgspec.convert(key.decode(), Id),
            occurred_at=record.timestamp,
            attributes={},
            available=False,
        )
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        return RejectedEvent(reason=Reason.WRONG_KEY, detail=str(error))
    return _check_ids(update) or _check_time(update, record.timestamp) or update


def event_key(event: Event) -> bytes:
    """Return the Kafka key of ``event``: its user, or the item of an update."""
    item_or_user = event.item_id if isinstance(event, ItemUpdate) else event.user_id
    return item_or_user.encode()


def type_of(event: Event) -> str:
    """Return the name of the event's type in its JSON."""
    return str(event.__struct_config__.tag)


def event_topic(event: Event) -> str:
    """Return the topic on which ``event`` belongs."""
    return ITEMS_TOPIC if isinstance(event, ItemUpdate) else BEHAVIOR_EVENTS_TOPIC


def _refused(message: str) -> RejectedEvent:
    """Return the rejection with the ``Reason`` of msgspec's message."""
    if "missing required field `type`" in message or message.endswith("`$.type`"):
        detail = f"{message}; known: {', '.join(_EVENT_TYPES)}"
        return RejectedEvent(reason=Reason.UNKNOWN_TYPE, detail=detail)
    if "missing required field" in message:
        return RejectedEvent(reason=Reason.MISSING_FIELD, detail=message)
    return RejectedEvent(reason=Reason.INVALID_FIELD, detail=message)


def _check_ids(event: Event, is_restored: bool = False) -> RejectedEvent | None:
    """Return why ``event`` may not name its item or its user, or None."""
    user_id = getattr(event, "user_id", "")
    if getattr(event, "item_id", None) == TOTAL_ITEM:
        detail = f"item_id {TOTAL_ITEM!r} is reserved for the total of all items: rename it"
    elif user_id == FORGOTTEN_USER and not is_restored:
        detail = f"user_id {FORGOTTEN_USER!r} is reserved for erased users: rename it"
    elif user_id.startswith(GOLDEN_USERS):
        detail = f"user_id {user_id!r} is reserved for golden requests: rename it"
    else:
        return None
    return RejectedEvent(reason=Reason.INVALID_FIELD, detail=detail)


def _check_time(event: Event, now_ms: int) -> RejectedEvent | None:
    """Return why ``occurred_at`` cannot be true, or None."""
    at = event.occurred_at
    if at < MIN_OCCURRED_AT_MS:
        return RejectedEvent(
            reason=Reason.TIME_IN_SECONDS,
            detail=f"occurred_at {at} is before 1973: is it in seconds? Send milliseconds",
        )
    if at > MAX_OCCURRED_AT_MS:
        return RejectedEvent(
            reason=Reason.TIME_IN_FUTURE,
            detail=f"occurred_at {at} is after 2100: is it in microseconds? "
            "Send milliseconds",
        )
    if at > now_ms + MAX_CLOCK_SKEW_MS:
        ahead_s = (at - now_ms) // 1000
        is_far = ahead_s > _YEAR_S
        hint = "is it in microseconds? Send milliseconds" if is_far else "is a clock ahead?"
        detail = f"occurred_at {at} is {ahead_s} s after it was sent: {hint}"
        return RejectedEvent(reason=Reason.TIME_IN_FUTURE, detail=detail)
    return None
