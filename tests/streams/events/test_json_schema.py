"""What producers read is what the stream accepts, and an old worker reads new events."""

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from srp4ctr.streams.events import codec
from srp4ctr.streams.events import json_schema as schemas
from srp4ctr.streams.events.json_schema import (
    EXAMPLES,
    asyncapi,
    json_schema,
    write_schemas,
)
from srp4ctr.streams.events.schema import Behavior, Event
from tests.builders import NOON_MS, a_behavior

FOLDER = Path(schemas.__file__).parent / "schemas"
REQUIRED = {
    "Impression": {"event_id", "request_id", "user_id", "item_id", "position"},
    "Click": {"event_id", "request_id", "user_id", "item_id"},
    "Behavior": {"event_id", "user_id", "item_id", "action"},
    "Forget": {"event_id", "user_id"},
    "ItemUpdate": {"event_id", "item_id", "attributes"},
    "UserUpdate": {"event_id", "user_id", "attributes"},
}


@pytest.mark.parametrize("name", ["events.schema.json", "asyncapi.json"])
def test_the_published_files_are_the_types(tmp_path: Path, name: str) -> None:
    write_schemas(tmp_path)
    fresh = (tmp_path / name).read_text()
    assert (FOLDER / name).read_text() == fresh, "run: srp4ctr events schema"


def test_every_type_has_an_example_that_the_stream_accepts() -> None:
    assert {type(event) for event in EXAMPLES} == set(get_args(Event))
    for event in EXAMPLES:
        assert codec.decode(codec.encode(event), event.occurred_at) == event


def test_an_old_worker_reads_an_event_with_a_field_that_it_does_not_know() -> None:
    class Newer(Behavior, tag="behavior", frozen=True, kw_only=True):
        """Tomorrow's behaviour: one optional field more."""

        device: str | None = None

    old = a_behavior(at_ms=NOON_MS)
    newer = Newer(**msgspec.structs.asdict(old), device="phone")
    assert codec.decode(msgspec.json.encode(newer), NOON_MS) == old
    assert msgspec.json.decode(codec.encode(old), type=Newer).device is None


def test_no_field_is_required_that_yesterdays_producers_do_not_send() -> None:
    always = {"type", "occurred_at"}
    required = {
        name: set(schema["required"]) for name, schema in json_schema()["$defs"].items()
    }
    assert required == {name: fields | always for name, fields in REQUIRED.items()}


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi()

    def references(node: object) -> list[str]:
        children: list[object] = []
        if isinstance(node, dict):
            if "$ref" in node:
                return [node["$ref"]]
            children = list(node.values())
        elif isinstance(node, list):
            children = node
        return [each for child in children for each in references(child)]

    found = references(document)
    assert len(found) > 10
    for reference in found:
        place = json.loads(json.dumps(document))
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_operators_commands_are_not_for_producers() -> None:
    assert "rebuild" not in json.dumps([json_schema(), asyncapi()]).lower()
