import json
import math
from dataclasses import replace

import pytest

from srp4ctr import tracing
from srp4ctr.errors import MistakeError
from srp4ctr.streams.events import codec
from srp4ctr.streams.events.codec import Reason, RejectedEvent, decode
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    FORGOTTEN_USER,
    GOLDEN_USERS,
    ITEMS_TOPIC,
    SYNTHETIC_USERS,
    TOTAL_ITEM,
    Behavior,
    Event,
)
from tests.builders import (
    NOON_MS,
    a_behavior,
    a_click,
    a_forget,
    a_profile,
    an_impression,
    an_item,
)
from tests.streams.records import ARecord


def a_payload(**changes: object) -> bytes:
    """Return a good behaviour's JSON with ``changes``; None leaves a field out."""
    fields: dict[str, object] = {
        "type": "behavior",
        "event_id": "e1",
        "user_id": "u1",
        "item_id": "i1",
        "action": "view",
        "occurred_at": NOON_MS,
    }
    kept = {name: value for name, value in (fields | changes).items() if value is not None}
    return json.dumps(kept).encode()


def the_reason(payload: bytes | None) -> str:
    decoded = decode(payload, NOON_MS)
    assert isinstance(decoded, RejectedEvent), decoded
    assert decoded.detail
    return decoded.reason


@pytest.mark.parametrize(
    "event",
    [
        an_impression(score=0.5, model_version="v1", context={"page": "home"}),
        an_impression(numbers={"price": 12.5, "price_rank": 0.25}),
        a_click(),
        a_behavior(value=4.5),
        an_item(genre=["drama", "war"], year="1994"),
    ],
)
def test_an_encoded_event_decodes_to_itself(event: Event) -> None:
    assert decode(codec.encode(event), NOON_MS + 60_000) == event


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (a_click(at_ms=NOON_MS // 1000), "time_in_seconds: .* Send milliseconds"),
        (a_click(at_ms=NOON_MS * 1000), "time_in_future"),
        (
            a_click(user_id=42),
            r"invalid_field: Expected `str`, got `int` - at `\$.user_id`",
        ),
        (a_click(user_id="u" * 257), r"invalid_field: .*length <= 256 - at `\$.user_id`"),
        (
            a_click(TOTAL_ITEM),
            "invalid_field: item_id 'srp4ctr-total' is reserved .*rename",
        ),
        (
            a_click(user_id=FORGOTTEN_USER),
            "user_id 'srp4ctr-forgotten' is reserved",
        ),
        (a_forget(user_id=FORGOTTEN_USER), "user_id 'srp4ctr-forgotten' is reserved"),
        (a_profile(user_id=FORGOTTEN_USER), "user_id 'srp4ctr-forgotten' is reserved"),
        (
            a_click(user_id=f"{GOLDEN_USERS}1"),
            "user_id 'srp4ctr-golden-1' is reserved for golden requests: rename it",
        ),
        (an_item(TOTAL_ITEM), "invalid_field: item_id 'srp4ctr-total' is reserved"),
        (a_behavior(action="Buy it"), r"invalid_field: .*at `\$.action`"),
        (an_impression(context={"page": 3}), r"invalid_field: .*at `\$.context\[...\]`"),
        (an_impression(context={"page": object()}), "invalid_field: Encoding objects"),
        (an_impression(numbers={"price": "1"}), r"invalid_field: .*at `\$.numbers\[...\]`"),
        (an_impression(numbers={"price": math.nan}), "Expected `float`, got `null`"),
        (an_impression(numbers={f"n{n}": 1.0 for n in range(33)}), r"length <= 32"),
        (a_click(user_id="\ud800"), "invalid_field: .*surrogates"),
    ],
)
def test_an_event_that_would_be_rejected_is_a_mistake_of_its_publisher(
    event: Event, message: str
) -> None:
    with pytest.raises(MistakeError, match=message):
        codec.checked(event, NOON_MS)
    assert codec.checked(a_click(), NOON_MS) == a_click()


def test_the_user_of_erased_rows_is_a_dead_letter_and_a_probe_is_a_user() -> None:
    forgotten, probe = (
        a_click(user_id=FORGOTTEN_USER),
        a_click(user_id=f"{SYNTHETIC_USERS}1"),
    )
    for event, reason in ((forgotten, codec.Reason.INVALID_FIELD), (probe, None)):
        record = ARecord(value=codec.encode(event), key=codec.event_key(event))
        found = codec.decode_record(record)
        rejected = (
            found.rejected.reason if isinstance(found, codec.RejectedRecord) else None
        )
        assert rejected == reason


def test_an_unknown_field_is_ignored() -> None:
    assert isinstance(decode(a_payload(screen="small"), NOON_MS), Behavior)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, Reason.BROKEN_JSON),
        (b"", Reason.BROKEN_JSON),
        (b"{not json", Reason.BROKEN_JSON),
        (a_payload() + b"}", Reason.BROKEN_JSON),
        (a_payload(user_id="X").replace(b'"X"', b'"\xff\xfe"'), Reason.BROKEN_JSON),
        (a_payload(user_id="\ud800"), Reason.BROKEN_JSON),
        (a_payload(value=float("nan")), Reason.BROKEN_JSON),
        (a_payload(x=1)[:-2] + b'{"a":' * 5000 + b"1" + b"}" * 5001, Reason.BROKEN_JSON),
        (b"[]", Reason.INVALID_FIELD),
        (b"[" * 60_000, Reason.INVALID_FIELD),
        (a_payload(value=7).replace(b"7", b"1e999", 1), Reason.INVALID_FIELD),
        (a_payload(type=None), Reason.UNKNOWN_TYPE),
        (a_payload(type="purchase"), Reason.UNKNOWN_TYPE),
        (a_payload(type=3), Reason.UNKNOWN_TYPE),
        (a_payload(user_id=None), Reason.MISSING_FIELD),
        (a_payload(user_id=""), Reason.INVALID_FIELD),
        (a_payload(user_id=7), Reason.INVALID_FIELD),
        (a_payload(user_id="u" * 300), Reason.INVALID_FIELD),
        (a_payload(item_id=TOTAL_ITEM), Reason.INVALID_FIELD),
        (a_payload(action="Added to cart"), Reason.INVALID_FIELD),
        (a_payload(occurred_at=NOON_MS + 0.5), Reason.INVALID_FIELD),
        (a_payload(occurred_at=NOON_MS // 1000), Reason.TIME_IN_SECONDS),
        (a_payload(occurred_at=-1), Reason.TIME_IN_SECONDS),
        (a_payload(occurred_at=NOON_MS * 1000), Reason.TIME_IN_FUTURE),
        (a_payload(occurred_at=NOON_MS + 6 * 60_000), Reason.TIME_IN_FUTURE),
        (a_payload(occurred_at=2**70), Reason.TIME_IN_FUTURE),
        (a_payload(user_id="u" * 1_000_000), Reason.TOO_LARGE),
    ],
)
def test_a_bad_message_is_rejected_with_its_reason(
    payload: bytes | None, reason: Reason
) -> None:
    assert the_reason(payload) == reason


def test_a_phone_whose_clock_is_minutes_ahead_is_believed() -> None:
    assert isinstance(decode(a_payload(occurred_at=NOON_MS + 240_000), NOON_MS), Behavior)


def test_a_time_after_2100_is_rejected_whatever_the_records_time_says() -> None:
    """A producer sets both times; the store's versions are such a time in 64 bits."""
    far_ms = 2**62
    event = ARecord(value=a_payload(occurred_at=far_ms), key=b"u1", timestamp=far_ms)
    deleted = ARecord(value=None, key=b"i1", topic=ITEMS_TOPIC, timestamp=far_ms)
    for record in (event, deleted):
        rejected = codec.decode_published(record)
        assert isinstance(rejected, RejectedEvent)
        assert rejected.reason == Reason.TIME_IN_FUTURE
        assert "is after 2100" in rejected.detail


def test_the_reserved_item_is_neither_described_nor_deleted() -> None:
    update = an_item(TOTAL_ITEM)
    for value in (codec.encode(update), None):
        record = ARecord(value=value, key=TOTAL_ITEM.encode(), topic=ITEMS_TOPIC)
        rejected = codec.decode_published(record)
        assert isinstance(rejected, RejectedEvent)
        assert "reserved" in rejected.detail


def test_an_item_update_does_not_belong_among_the_users_events() -> None:
    update = ARecord(value=codec.encode(an_item()), key=b"i1", topic=ITEMS_TOPIC)
    rejected = codec.decode_published(replace(update, topic=BEHAVIOR_EVENTS_TOPIC))
    assert isinstance(rejected, RejectedEvent)
    assert rejected.reason == Reason.WRONG_TOPIC
    assert codec.decode_published(update) == an_item()


def test_a_users_event_does_not_belong_among_the_item_updates() -> None:
    event = ARecord(value=a_payload(), key=b"i1", topic=ITEMS_TOPIC)
    rejected = codec.decode_published(event)
    assert isinstance(rejected, RejectedEvent)
    assert rejected.reason == Reason.WRONG_TOPIC


@pytest.mark.parametrize("key", [None, b"", b"u2", b"i1"])
def test_an_event_under_another_key_than_its_users_is_rejected(key: bytes | None) -> None:
    rejected = codec.decode_published(ARecord(value=a_payload(), key=key))
    assert isinstance(rejected, RejectedEvent)
    assert rejected.reason == Reason.WRONG_KEY
    record = ARecord(value=a_payload(), key=b"u1")
    assert isinstance(codec.decode_published(record), Behavior)


def test_a_header_without_a_value_is_none() -> None:
    record = replace(ARecord(value=a_payload()), headers=((tracing.HEADER, None),))
    event = codec.decode_record(record)
    assert isinstance(event, codec.LoggedEvent)
    assert event.traceparent == ""


def test_events_go_to_their_topic_under_their_key() -> None:
    assert (codec.event_topic(a_click()), codec.event_key(a_click())) == (
        BEHAVIOR_EVENTS_TOPIC,
        b"u1",
    )
    assert (codec.event_topic(an_item()), codec.event_key(an_item())) == (
        ITEMS_TOPIC,
        b"i1",
    )


def test_the_rejection_of_an_unknown_type_names_the_known_ones() -> None:
    rejected = decode(a_payload(type="purchase"), NOON_MS)
    assert isinstance(rejected, RejectedEvent)
    assert "known: behavior, click, forget, impression, item, user" in rejected.detail
