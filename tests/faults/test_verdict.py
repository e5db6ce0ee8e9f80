"""What Kafka did not acknowledge may be on the topic or not: both are right."""

from dataclasses import replace
from typing import Any

from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from srp4ctr.streams.events.codec import Reason, encode, event_key
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, Event
from srp4ctr.testing.fault_injection.traffic import Message
from srp4ctr.testing.fault_injection.verdict import published_to
from tests.builders import a_click, an_impression, an_item
from tests.streams.records import ARecord


def message_of(event: Event) -> Message:
    topic = ITEMS_TOPIC if event.__class__.__name__ == "ItemUpdate" else None
    return Message(
        topic=topic or BEHAVIOR_EVENTS_TOPIC,
        key=event_key(event),
        value=encode(event),
        event=event,
    )


def record_of(message: Message, offset: int) -> ARecord:
    assert message.value is not None
    return replace(
        ARecord(value=message.value, key=message.key or b""),
        topic=message.topic,
        offset=offset,
    )


def acknowledged(record: ARecord) -> Any:
    return Future().success(record)


def expired() -> Any:
    return Future().failure(KafkaTimeoutError("Batch expired after 120 s"))


def test_an_unacknowledged_message_counts_if_it_is_on_the_topic() -> None:
    known, there = message_of(an_impression("i1")), message_of(a_click("i1"))
    missing, twice = message_of(a_click("i2")), message_of(an_impression("i3"))
    poison = replace(there, value=b"{", event=None, reason=Reason.BROKEN_JSON)
    on_topic = [known, there, poison, twice, twice]
    records = [record_of(each, offset) for offset, each in enumerate(on_topic)]
    found = published_to(
        records,
        [
            (known, acknowledged(records[0])),
            *((each, expired()) for each in (there, missing, poison, twice)),
            (twice, acknowledged(records[4])),
            (twice, expired()),  # a third one, which never arrived
        ],
    )
    partition = records[0].partition
    assert {at: each.event for at, each in found.events.items()} == {
        (partition, 0): known.event,
        (partition, 1): there.event,
        (partition, 3): twice.event,
        (partition, 4): twice.event,
    }
    assert found.poison == {(partition, 2): Reason.BROKEN_JSON}
    assert found.values.keys() == found.events.keys() | found.poison.keys()


def test_an_unacknowledged_update_of_an_item_counts_if_it_is_on_the_topic() -> None:
    red, blue = (message_of(an_item("i1", colour=colour)) for colour in ("red", "blue"))
    first = record_of(red, 0)
    messages = [(red, acknowledged(first)), (blue, expired())]
    assert published_to([first], messages).updates == {"i1": red.event}
    both = [first, record_of(blue, 1)]
    assert published_to(both, messages).updates == {"i1": blue.event}
