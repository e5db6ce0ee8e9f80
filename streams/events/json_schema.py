"""The events' types → what producers in any language read: JSON Schema and AsyncAPI.

In: the types of ``schema.py``. Out: ``schema/events.schema.json`` and
``schema/asyncapi.json``; a test holds the files to the types.
"""

from pathlib import Path
from typing import Any, get_args

import msgspec

from srp4ctr.atomic_files import replace_text
from srp4ctr.streams.events.codec import Reason, event_topic, type_of
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    REJECTED_TOPIC,
    Behavior,
    Click,
    Event,
    Forget,
    Impression,
    ItemUpdate,
    UserUpdate,
)

VERSION = "1.5.0"  # a new optional field or type raises the second number
_REF = "#/components/schemas/{name}"
_AT = 1_767_225_600_000  # the first moment of 2026
EXAMPLES: tuple[Event, ...] = (
    Impression(
        event_id="0b7c1f9e",
        request_id="r-20",
        user_id="42",
        item_id="50",
        position=0,
        occurred_at=_AT,
        model_version="v7",
        score=0.31,
        context={"device": "phone"},
        numbers={"price": 12.5},
    ),
    Click(
        event_id="5d2a77c0",
        request_id="r-20",
        user_id="42",
        item_id="50",
        occurred_at=_AT + 4_200,
    ),
    Behavior(
        event_id="c41be3a8",
        user_id="42",
        item_id="50",
        action="rate",
        occurred_at=_AT + 90_000,
        value=4.0,
    ),
    UserUpdate(
        event_id="a4d03e57",
        user_id="42",
        occurred_at=_AT,
        attributes={"age": "34", "interests": ["films", "travel"]},
    ),
    Forget(event_id="e90f6d21", user_id="42", occurred_at=_AT + 3_600_000),
    ItemUpdate(
        event_id="7f3308bd",
        item_id="50",
        occurred_at=_AT,
        attributes={"title": "Star Wars (1977)", "genre": ["action", "sci-fi"]},
    ),
)
_TOPICS = {
    BEHAVIOR_EVENTS_TOPIC: "What users were shown, did and are. Record key: the user_id.",
    ITEMS_TOPIC: "Items' attributes; the latest update counts. Record key: the item_id.",
    REJECTED_TOPIC: "What could not be read: the record's bytes and key, and the reason.",
}
_OPERATIONS = {
    "read-events": ("receive", BEHAVIOR_EVENTS_TOPIC),
    "read-items": ("receive", ITEMS_TOPIC),
    "reject": ("send", REJECTED_TOPIC),
}
_REJECTED = {
    "name": "rejected",
    "title": "Rejected",
    "contentType": "application/octet-stream",
    "headers": {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "enum": [str(reason) for reason in Reason]},
            "detail": {"type": "string", "description": "What is wrong, in a sentence."},
            "source_topic": {"type": "string"},
            "source_partition": {"type": "string", "description": "A number."},
            "source_offset": {"type": "string", "description": "A number."},
            "source_timestamp": {"type": "string", "description": "UTC milliseconds."},
            "attempts": {
                "type": "string",
                "description": "How often it has been rejected.",
            },
            "truncated_from": {
                "type": "string",
                "description": "Its size, where it was cut.",
            },
            "key_truncated_from": {
                "type": "string",
                "description": "Its key's size, where that was cut.",
            },
        },
    },
    "payload": {"description": "The record's bytes, whatever they are."},
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of every event, with an example of each."""
    schema = msgspec.json.schema(Event)
    return schema | {"examples": [msgspec.to_builtins(event) for event in EXAMPLES]}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of the topics that producers deal with."""
    _, schemas = msgspec.json.schema_components(get_args(Event), ref_template=_REF)
    messages = {type_of(event): _message(event) for event in EXAMPLES}
    messages["rejected"] = _REJECTED
    on_topic: dict[str, list[str]] = {topic: [] for topic in _TOPICS}
    on_topic[REJECTED_TOPIC].append("rejected")
    for event in EXAMPLES:
        on_topic[event_topic(event)].append(type_of(event))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "srp4ctr events",
            "version": VERSION,
            "description": "What producers publish; see docs/producers.md.",
        },
        "defaultContentType": "application/json",
        "channels": {topic: _channel(topic, names) for topic, names in on_topic.items()},
        "operations": {
            name: {"action": action, "channel": {"$ref": f"#/channels/{topic}"}}
            for name, (action, topic) in _OPERATIONS.items()
        },
        "components": {"schemas": schemas, "messages": messages},
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write both files into ``folder`` and return their paths."""
    contents = {"events.schema.json": json_schema(), "asyncapi.json": asyncapi()}
    for name, content in contents.items():
        text = msgspec.json.format(msgspec.json.encode(content).decode(), indent=2)
        replace_text(folder / name, text + "\n")
    return [folder / name for name in contents]


def _channel(topic: str, messages: list[str]) -> dict[str, Any]:
    return {
        "address": topic,
        "description": _TOPICS[topic],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _message(example: Event) -> dict[str, Any]:
    kind = type(example).__name__
    owner = "item_id" if isinstance(example, ItemUpdate) else "user_id"
    key = {"type": "string", "description": f"The event's {owner}, in UTF-8."}
    return {
        "name": type_of(example),
        "title": kind,
        "payload": {"$ref": _REF.format(name=kind)},
        "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
        "examples": [{"payload": msgspec.to_builtins(example)}],
    }
