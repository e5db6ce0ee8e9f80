"""A request's body → its events, each judged as the stream will judge it.

In: one JSON object, a JSON array of objects, or JSON lines. Out: an event or a reason for
each, in order; or one ``MistakeError`` where the body as a whole cannot be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.codec import RejectedEvent, decode
from srp4ctr.streams.events.schema import Event

_elements = msgspec.json.Decoder(list[msgspec.Raw])
_whole = msgspec.json.Decoder(msgspec.Raw)
_object = msgspec.json.Decoder(dict[str, Any])


class TooManyEventsError(MistakeError):
    """The body holds more events than one request may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An element of the body, and what it is."""

    event: Event | RejectedEvent
    event_id: str | None
    """As it was sent, so that its sender finds it; None where it cannot be read."""


def read_body(body: bytes, now_ms: int, max_events: int) -> list[Judged]:
    """Return the events of ``body``, which became known at ``now_ms``.

    Raises ``TooManyEventsError`` above ``max_events``, and ``MistakeError`` for a body
    without an event or an array that is not JSON: then no part of it counts.
    """
    payloads = _payloads(body.strip())
    if not payloads:
        raise MistakeError("the body is empty: send an event, an array, or JSON lines")
    if len(payloads) > max_events:
        raise TooManyEventsError(
            f"{len(payloads)} events in one request; at most {max_events} are accepted"
        )
    return [_judge(payload, now_ms) for payload in payloads]


def _payloads(body: bytes) -> Sequence[bytes]:
    if body.startswith(b"["):
        try:
            return [bytes(element) for element in _elements.decode(body)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise MistakeError(f"the body is no JSON array: {error}") from None
    try:
        _whole.decode(body)  # one object, perhaps over several lines
    except (msgspec.DecodeError, RecursionError):
        return [line for line in body.split(b"\n") if line.strip()]
    return [body]


def _judge(payload: bytes, now_ms: int) -> Judged:
    event = decode(payload, now_ms)
    if not isinstance(event, RejectedEvent):
        return Judged(event=event, event_id=event.event_id)
    try:
        found = _object.decode(payload).get("event_id")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return Judged(event=event, event_id=found[:256] if isinstance(found, str) else None)
