"""Whatever lies on Kafka: an event within its bounds, or a reason from the list."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.streams.events import codec
from srp4ctr.streams.events.codec import (
    MAX_MESSAGE_BYTES,
    Reason,
    RejectedEvent,
    RejectedRecord,
    decode,
)
from srp4ctr.streams.events.json_schema import EXAMPLES
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    MAX_ATTRIBUTE_VALUES,
    MAX_ATTRIBUTES,
    MAX_CONTEXT_FIELDS,
    MAX_ID_LENGTH,
    Rebuild,
)
from srp4ctr.streams.state.label_join import decode_label
from tests.builders import NOON_MS
from tests.fuzzing import examples, outcome
from tests.streams.records import ARecord

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "a" * 257, "\ud800", "\x00", NOON_MS, NOON_MS * 1000, 2**63, -1]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)
GOOD = [json.loads(codec.encode(example)) for example in EXAMPLES]
FIELDS = sorted({name for each in GOOD for name in each})
TOPICS = (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC)


@st.composite
def almost_events(draw: st.DrawFn) -> bytes:
    """Return a good event's JSON with some of its fields changed, added or left out."""
    event: dict[str, Any] = dict(draw(st.sampled_from(GOOD)))
    for name in draw(st.sets(st.sampled_from(FIELDS) | st.text(max_size=5), max_size=3)):
        if draw(st.booleans()):
            event.pop(name, None)
        else:
            event[name] = draw(VALUES)
    text = json.dumps(event).encode()
    if draw(st.booleans()):
        return text
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=4)) + text[at + draw(st.integers(0, 4)) :]


PAYLOADS = st.one_of(
    st.none(),
    st.binary(max_size=300),
    almost_events(),
    st.sampled_from([b"[" * 20_000, b'{"a":' * 5_000, b"1" * 5_000, b"\xef\xbb\xbf{}"]),
)


@settings(deadline=None, max_examples=examples(200))
@given(
    payload=PAYLOADS, key=st.none() | st.binary(max_size=8), now_ms=st.integers(0, 2**45)
)
def test_a_message_is_an_event_within_bounds_or_rejected_with_a_reason(
    payload: bytes | None, key: bytes | None, now_ms: int
) -> None:
    event = decode(payload, now_ms)
    if isinstance(event, RejectedEvent):
        assert event.reason in set(Reason)
        assert event.detail
    else:
        within_bounds(event, payload or b"", now_ms)
    for topic in TOPICS:
        record = ARecord(value=payload, key=key, timestamp=now_ms, topic=topic)
        published = codec.decode_published(record)
        if not isinstance(published, RejectedEvent):
            assert (codec.event_topic(published), codec.event_key(published)) == (
                topic,
                key,
            )
    command = codec.decode_record(ARecord(value=payload, key=codec.COMMAND_KEY))
    assert isinstance(command, Rebuild | RejectedRecord)


def within_bounds(event: Any, payload: bytes, now_ms: int) -> None:
    assert len(payload) <= MAX_MESSAGE_BYTES
    assert codec.MIN_OCCURRED_AT_MS <= event.occurred_at <= now_ms + codec.MAX_CLOCK_SKEW_MS
    fields = msgspec.structs.asdict(event)
    for name, value in fields.items():
        if name.endswith("_id") and value is not None:
            assert 1 <= len(value) <= MAX_ID_LENGTH
    assert len(fields.get("context") or {}) <= MAX_CONTEXT_FIELDS
    attributes = fields.get("attributes") or {}
    assert len(attributes) <= MAX_ATTRIBUTES
    lists = [attribute for attribute in attributes.values() if isinstance(attribute, list)]
    assert all(len(each) <= MAX_ATTRIBUTE_VALUES for each in lists)
    assert decode(codec.encode(event), now_ms) == event


@settings(deadline=None, max_examples=examples(100))
@given(payload=st.binary(max_size=300) | almost_events())
def test_a_label_is_one_or_a_plain_error(payload: bytes) -> None:
    label, refusal = outcome(lambda: decode_label(payload))
    assert refusal if label is None else label.request_id
