"""Records ↔ rows of the raw log."""

import json
from pathlib import Path

import msgspec
import pytest

from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    UserEvent,
)
from srp4ctr.streams.raw_log.delta_tables import read_rows
from srp4ctr.streams.raw_log.log_tables import event_of, row_of, schema_of, update_of
from srp4ctr.streams.state.label_join import LabelJoin, encode_label
from srp4ctr.testing.raw_logs import write_rows
from tests.builders import (
    NOON_MS,
    a_behavior,
    a_click,
    a_forget,
    a_profile,
    an_impression,
    an_item,
)
from tests.streams.records import ARecord, a_command


def named(record: ARecord) -> dict[str, object]:
    row = row_of(record)
    assert row is not None
    return dict(zip(schema_of(record.topic).names, row, strict=True))


def test_an_impression_becomes_a_row_with_its_context_as_text() -> None:
    shown = an_impression(position=0, score=0.5, context={"page": "home"})
    row = named(ARecord(value=encode(shown), timestamp=NOON_MS + 7, offset=9))
    assert (row["type"], row["position"], row["score"]) == ("impression", 0, 0.5)
    assert row["context"] == '{"page":"home"}'
    assert row["numbers"] is None
    assert (row["created_at"], row["partition"], row["offset"]) == (NOON_MS + 7, 3, 9)
    assert row["action"] is None


def test_an_item_update_becomes_a_row_with_its_attributes_as_text() -> None:
    payload = encode(an_item(genre=["war"]))
    row = named(ARecord(value=payload, key=b"i1", topic=ITEMS_TOPIC))
    assert (row["item_id"], row["attributes"]) == ("i1", '{"genre":["war"]}')


def a_label() -> ARecord:
    join = LabelJoin(60_000, 0, max_kept=10)
    join.add(an_impression(), NOON_MS)
    (label,) = join.add(a_click(), NOON_MS)
    return ARecord(value=encode_label(label), topic=LABELS_TOPIC)


def test_a_label_becomes_a_row() -> None:
    row = named(a_label())
    assert (row["clicked"], row["revision"]) == (True, 2)


@pytest.mark.parametrize("topic", [BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC])
def test_a_rejected_message_has_no_row(topic: str) -> None:
    assert row_of(ARecord(value=b"{", topic=topic)) is None


EVERY_TYPE: list[UserEvent] = [
    an_impression(position=0),
    an_impression(
        position=7,
        model_version="v1",
        experiment="v2-v1",
        arm="v2",
        score=0.0,
        propensity=0.25,
        context={"page": "home", "seite": "Übersicht"},
        numbers={"price": 12.5, "discount": 0.0},
    ),
    a_click("film 7"),
    a_behavior(action="rate", value=0.0),
    a_behavior(action="view"),
    a_behavior(action="buy", request_id="r1"),
    a_profile(age="34", towns=["Ulm", "Köln"]),
    a_forget(),
]


@pytest.mark.parametrize("event", EVERY_TYPE)
def test_a_row_gives_back_the_event_that_it_was_made_of(
    event: UserEvent, tmp_path: Path
) -> None:
    record = ARecord(value=encode(event), timestamp=NOON_MS + 10_000, offset=9)
    row = row_of(record)
    assert row is not None
    taken = range(9, 10)
    write_rows(tmp_path, BEHAVIOR_EVENTS_TOPIC, [row], 3, taken)
    ((read,),) = read_rows(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)
    logged = event_of(read)
    assert logged.event == event
    assert (logged.offset, logged.known_at_ms) == (9, NOON_MS + 10_000)


def test_an_operators_command_is_not_in_the_log() -> None:
    assert row_of(a_command(1)) is None


@pytest.mark.parametrize("available", [True, False])
def test_an_items_row_says_whether_it_is_available(available: bool) -> None:
    update = msgspec.structs.replace(an_item(genre=["war"]), available=available)
    row = row_of(ARecord(value=encode(update), topic=ITEMS_TOPIC, key=b"i1"))
    assert row is not None
    read = dict(zip(schema_of(ITEMS_TOPIC).names, row, strict=True))
    assert json.loads(read["attributes"]).get("available") == (
        None if available else "false"
    )
    assert update_of(read) == update


def test_a_tombstone_is_an_update_that_deletes_the_item() -> None:
    row = row_of(ARecord(value=None, topic=ITEMS_TOPIC, key=b"i1", offset=7))
    assert row is not None
    read = dict(zip(schema_of(ITEMS_TOPIC).names, row, strict=True))
    deleted = update_of(read)
    assert (deleted.item_id, deleted.attributes, deleted.available) == ("i1", {}, False)
    for key in (b"\xff", b"i" * 257):  # such an item's row would not be read again
        assert row_of(ARecord(value=None, topic=ITEMS_TOPIC, key=key)) is None
