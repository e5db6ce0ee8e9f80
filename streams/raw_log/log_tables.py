"""Records → rows of the raw log: one flat table per topic.

In: records of ``behavior-events``, ``items`` and ``impression-labels``. Out: tuples in
the order of ``COLUMNS``, or None for a message that was rejected. And back: events.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from srp4ctr.streams.events.codec import (
    LoggedEvent,
    Record,
    RejectedEvent,
    decode_item_update,
    decode_user_event,
)
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    Behavior,
    Click,
    Forget,
    Impression,
    ItemUpdate,
    UserEvent,
)
from srp4ctr.streams.state.label_join import ImpressionLabel, decode_label

Kind = Literal["text", "integer", "real", "flag"]
Row = tuple[Any, ...]

_EVENT_COLUMNS: Mapping[str, Kind] = {
    "type": "text",
    "event_id": "text",
    "request_id": "text",
    "user_id": "text",
    "item_id": "text",
    "occurred_at": "integer",  # UTC milliseconds
    "created_at": "integer",  # UTC milliseconds: the record's timestamp
    "position": "integer",
    "model_version": "text",
    "score": "real",
    "propensity": "real",
    "context": "text",  # a flat JSON object
    "action": "text",
    "value": "real",
    "partition": "integer",
    "offset": "integer",
}
_ITEM_COLUMNS: Mapping[str, Kind] = {
    "event_id": "text",
    "item_id": "text",
    "occurred_at": "integer",
    "created_at": "integer",
    "attributes": "text",  # a JSON object
    "partition": "integer",
    "offset": "integer",
}
_LABEL_COLUMNS: Mapping[str, Kind] = {
    "request_id": "text",
    "user_id": "text",
    "item_id": "text",
    "position": "integer",
    "score": "real",
    "propensity": "real",
    "model_version": "text",
    "impression_at": "integer",
    "clicked": "flag",
    "within_window": "flag",
    "matured_at": "integer",
    "revision": "integer",
    "created_at": "integer",
    "partition": "integer",
    "offset": "integer",
}
COLUMNS: Mapping[str, Mapping[str, Kind]] = {
    BEHAVIOR_EVENTS_TOPIC: _EVENT_COLUMNS,
    ITEMS_TOPIC: _ITEM_COLUMNS,
    LABELS_TOPIC: _LABEL_COLUMNS,
}


def row_of(record: Record) -> Row | None:
    """Return ``record`` as a row of its topic's table; None if it is not an event."""
    return _ROW_MAKERS[record.topic](record)


def event_of(row: Mapping[str, Any]) -> LoggedEvent:
    """Return the event that ``row`` of ``behavior-events`` was made of."""
    known = {name: value for name, value in row.items() if value is not None}
    if "context" in known:
        known["context"] = msgspec.json.decode(known["context"])
    return LoggedEvent(
        event=msgspec.convert(known, UserEvent),
        offset=row["offset"],
        known_at_ms=row["created_at"],
    )


def update_of(row: Mapping[str, Any]) -> ItemUpdate:
    """Return the item update that ``row`` of ``items`` was made of."""
    known = {**row, "attributes": msgspec.json.decode(row["attributes"])}
    return msgspec.convert(known, ItemUpdate)


def _event_row(record: Record) -> Row | None:
    event = decode_user_event(record.value, record.key, record.timestamp)
    if isinstance(event, RejectedEvent):
        return None
    shown = event if isinstance(event, Impression) else None
    behavior = event if isinstance(event, Behavior) else None
    return (
        event.__struct_config__.tag,
        event.event_id,
        event.request_id if isinstance(event, Impression | Click) else None,
        event.user_id,
        None if isinstance(event, Forget) else event.item_id,
        event.occurred_at,
        record.timestamp,
        shown and shown.position,
        shown and shown.model_version,
        shown and shown.score,
        shown and shown.propensity,
        _json(shown.context) if shown and shown.context else None,
        behavior and behavior.action,
        behavior and behavior.value,
        record.partition,
        record.offset,
    )


def _item_row(record: Record) -> Row | None:
    update = decode_item_update(record.value, record.key, record.timestamp)
    if isinstance(update, RejectedEvent):
        return None
    return (
        update.event_id,
        update.item_id,
        update.occurred_at,
        record.timestamp,
        _json(update.attributes),
        record.partition,
        record.offset,
    )


def _label_row(record: Record) -> Row | None:
    try:
        label = decode_label(record.value or b"")
    except ValueError:  # only our own worker writes here
        return None
    fields = (getattr(label, name) for name in ImpressionLabel.__struct_fields__)
    return (*fields, record.timestamp, record.partition, record.offset)


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


_ROW_MAKERS: Mapping[str, Callable[[Record], Row | None]] = {
    BEHAVIOR_EVENTS_TOPIC: _event_row,
    ITEMS_TOPIC: _item_row,
    LABELS_TOPIC: _label_row,
}
