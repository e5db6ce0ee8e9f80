"""Bytes on Kafka ↔ events: decode, validate, and say why a message is rejected.

In: the raw value of a record. Out: an event, or ``RejectedEvent`` with a reason from
a short fixed list (it becomes a metric's label) and a sentence for a person.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from streams.events import Event

MAX_MESSAGE_BYTES = 64 * 1024  # an event of this schema with long ids is under 8 kB
# 1e11 is March 1973 in milliseconds and the year 5138 in seconds.
MIN_OCCURRED_AT_MS = 100_000_000_000
MAX_CLOCK_SKEW_MS = 5 * 60 * 1000  # a phone's clock may be minutes ahead, not hours


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedEvent:
    """A message that is not an event: the reason, and a sentence that says what to do."""

    reason: Reason
    detail: str


_decoder = msgspec.json.Decoder(Event)
_encoder = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """Return ``event`` as one line of JSON."""
    return _encoder.encode(event)


def decode(payload: bytes | None, now_ms: int) -> Event | RejectedEvent:
    """Return the event in ``payload``, or why there is none; never raises.

    ``now_ms`` is when the message became known (its record's timestamp): an event more
    than five minutes after it is rejected.
    """
    if payload is None:
        return RejectedEvent(reason=Reason.BROKEN_JSON, detail="the message is empty")
    if len(payload) > MAX_MESSAGE_BYTES:
        detail = f"{len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are accepted"
        return RejectedEvent(reason=Reason.TOO_LARGE, detail=detail)
    try:
        event = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        return RejectedEvent(reason=_reason(str(error)), detail=str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return RejectedEvent(reason=Reason.BROKEN_JSON, detail=str(error))
    return _check_time(event, now_ms) or event


def _reason(message: str) -> Reason:
    """Sort msgspec's message into our list of reasons."""
    if "missing required field `type`" in message or message.startswith("Invalid value"):
        return Reason.UNKNOWN_TYPE
    if "missing required field" in message:
        return Reason.MISSING_FIELD
    return Reason.INVALID_FIELD


def _check_time(event: Event, now_ms: int) -> RejectedEvent | None:
    """Return why ``occurred_at`` cannot be true, or None."""
    at = event.occurred_at
    if at < MIN_OCCURRED_AT_MS:
        return RejectedEvent(
            reason=Reason.TIME_IN_SECONDS,
            detail=f"occurred_at {at} is before 1973: is it in seconds? Send milliseconds",
        )
    if at > now_ms + MAX_CLOCK_SKEW_MS:
        ahead_s = (at - now_ms) // 1000
        return RejectedEvent(
            reason=Reason.TIME_IN_FUTURE,
            detail=f"occurred_at {at} is {ahead_s} s after it was published",
        )
    return None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of every event, for producers in other languages."""
    return msgspec.json.schema(Event)


def write_json_schema(folder: Path) -> Path:
    """Write ``events.schema.json`` into ``folder`` and return its path."""
    path = folder / "events.schema.json"
    text = msgspec.json.format(msgspec.json.encode(json_schema()), indent=2)
    path.write_bytes(text + b"\n")
    return path
