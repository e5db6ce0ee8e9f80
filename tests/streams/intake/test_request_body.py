"""What a request's body is read as, before any broker is met."""

import json

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.codec import Reason, RejectedEvent, encode
from srp4ctr.streams.events.schema import Click, Event
from srp4ctr.streams.intake.request_body import Judged, TooManyEventsError, read_body
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression, an_item

EVENTS: tuple[Event, ...] = (
    a_click(),
    an_impression(),
    a_behavior(),
    a_forget(),
    an_item(),
)
LINES = b"\n".join(encode(event) for event in EVENTS)
ARRAY = b"[" + LINES.replace(b"\n", b",") + b"]"


def read(body: bytes, max_events: int = 10) -> list[Judged]:
    return read_body(body, NOON_MS, max_events)


@pytest.mark.parametrize(
    "body", [LINES, ARRAY, b"\n" + LINES + b"\r\n\r\n", LINES.replace(b"\n", b"\n \n")]
)
def test_an_array_and_lines_are_the_same_events(body: bytes) -> None:
    assert [each.event for each in read(body)] == list(EVENTS)


def test_one_event_may_stand_on_several_lines() -> None:
    spread = json.dumps(json.loads(encode(a_click())), indent=2).encode()
    assert [each.event for each in read(spread)] == [a_click()]


def test_a_bad_event_is_rejected_alone_for_its_reason() -> None:
    bodies = {
        b'{"type": "click", "event_id": "e7"}': Reason.MISSING_FIELD,
        b'{"type": "buy", "event_id": "e7"}': Reason.UNKNOWN_TYPE,
        encode(a_click(at_ms=1_700_000_000, event_id="e7")): Reason.TIME_IN_SECONDS,
        encode(a_click(at_ms=NOON_MS + 10**9, event_id="e7")): Reason.TIME_IN_FUTURE,
        encode(a_click(user_id="srp4ctr-forgotten", event_id="e7")): Reason.INVALID_FIELD,
        b'{"type": "rebuild", "event_id": "e7", "since_ms": 0}': Reason.UNKNOWN_TYPE,
    }
    found = read(b"[" + b",".join([encode(a_click()), *bodies]) + b"]")
    assert isinstance(found[0].event, Click)
    for each, reason in zip(found[1:], bodies.values(), strict=True):
        assert isinstance(each.event, RejectedEvent)
        assert (each.event.reason, each.event_id) == (reason, "e7")


def test_a_broken_line_is_rejected_and_its_neighbours_are_not() -> None:
    first, broken, last = read(encode(a_click()) + b'\n{"type": \n' + encode(an_item()))
    assert (first.event, last.event) == (a_click(), an_item())
    assert isinstance(broken.event, RejectedEvent)
    assert (broken.event.reason, broken.event_id) == (Reason.BROKEN_JSON, None)


@pytest.mark.parametrize("element", [b"1", b"null", b'"x"', b"[]", b'{"event_id": 7}'])
def test_an_element_that_is_no_event_has_no_id(element: bytes) -> None:
    (found,) = read(b"[" + element + b"]")
    assert isinstance(found.event, RejectedEvent)
    assert found.event_id is None


@pytest.mark.parametrize("body", [b"", b" \n", b"[]"])
def test_a_body_without_events_is_a_mistake(body: bytes) -> None:
    with pytest.raises(MistakeError, match="the body is empty"):
        read(body)


@pytest.mark.parametrize("body", [b"[{]", b"[" * 100_000, ARRAY[:-1], ARRAY + b"x"])
def test_a_broken_array_is_a_mistake_as_a_whole(body: bytes) -> None:
    with pytest.raises(MistakeError, match="no JSON array"):
        read(body)


def test_more_events_than_allowed_are_none() -> None:
    with pytest.raises(TooManyEventsError, match="5 events in one request; at most 4"):
        read(ARRAY, max_events=4)
    assert len(read(ARRAY, max_events=5)) == 5


def test_any_bytes_are_answered() -> None:
    for body in (b"\xff\xfe{", b'{"a": "\xff"}', b"{" * 50_000, b'{"event_id": ' * 9_999):
        (found,) = read(body)
        assert isinstance(found.event, RejectedEvent)
