"""Records → rows of the raw log, a flat table per topic. And back: events."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from srp4ctr.streams.events.codec import (
    LoggedEvent,
    Record,
    RejectedEvent,
    decode_published,
    type_of,
)
from srp4ctr.streams.events.schema import (
    AVAILABLE,
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    NOT_AVAILABLE,
    Behavior,
    Click,
    Forget,
    Impression,
    ItemUpdate,
    UserEvent,
    UserUpdate,
    json_text,
)
from srp4ctr.streams.state.label_join import ImpressionLabel, decode_label

Row = tuple[Any, ...]
MS_PER_DAY = 86_400_000
DATE = "date"  # of the record's timestamp, in UTC
_TEXT, _INTEGER, _REAL = pa.string(), pa.int64(), pa.float64()

_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    BEHAVIOR_EVENTS_TOPIC: {
        "type": _TEXT,
        "event_id": _TEXT,
        "request_id": _TEXT,
        "user_id": _TEXT,
        "item_id": _TEXT,
        "occurred_at": _INTEGER,  # UTC milliseconds
        "created_at": _INTEGER,  # UTC milliseconds: the record's timestamp
        "position": _INTEGER,
        "model_version": _TEXT,
        "score": _REAL,
        "propensity": _REAL,
        "context": _TEXT,  # a flat JSON object
        "action": _TEXT,
        "value": _REAL,
        "attributes": _TEXT,  # a JSON object
        "partition": _INTEGER,
        "offset": _INTEGER,
    },
    ITEMS_TOPIC: {
        "event_id": _TEXT,
        "item_id": _TEXT,
        "occurred_at": _INTEGER,
        "created_at": _INTEGER,
        "attributes": _TEXT,  # a JSON object
        "partition": _INTEGER,
        "offset": _INTEGER,
    },
    LABELS_TOPIC: {
        "request_id": _TEXT,
        "user_id": _TEXT,
        "item_id": _TEXT,
        "position": _INTEGER,
        "score": _REAL,
        "propensity": _REAL,
        "model_version": _TEXT,
        "impression_at": _INTEGER,
        "clicked": pa.bool_(),
        "within_window": pa.bool_(),
        "matured_at": _INTEGER,
        "revision": _INTEGER,
        "created_at": _INTEGER,
        "partition": _INTEGER,
        "offset": _INTEGER,
    },
}


def schema_of(topic: str) -> Any:
    """Return the Arrow schema of ``topic``'s table."""
    return pa.schema(_COLUMNS[topic].items())


def row_of(record: Record) -> Row | None:
    """Return ``record`` as a row of its topic's table; None if it is not an event."""
    if record.topic == LABELS_TOPIC:
        return _label_row(record)
    event = decode_published(record)
    if isinstance(event, RejectedEvent):
        return None
    if isinstance(event, ItemUpdate):
        return _item_row(event, record)
    return _event_row(event, record)


def event_of(row: Mapping[str, Any]) -> LoggedEvent:
    """Return the event that ``row`` of ``behavior-events`` was made of."""
    known = {name: value for name, value in row.items() if value is not None}
    for name in ("context", "attributes"):
        if name in known:
            known[name] = msgspec.json.decode(known[name])
    return LoggedEvent(
        event=msgspec.convert(known, UserEvent),
        offset=row["offset"],
        known_at_ms=row["created_at"],
    )


def update_of(row: Mapping[str, Any]) -> ItemUpdate:
    """Return the item update that ``row`` of ``items`` was made of."""
    attributes = msgspec.json.decode(row["attributes"])
    is_available = attributes.get(AVAILABLE) != NOT_AVAILABLE
    if not is_available:
        del attributes[AVAILABLE]
    known = {**row, "attributes": attributes, "available": is_available}
    return msgspec.convert(known, ItemUpdate)


def table_of(topic: str, rows: Sequence[Row]) -> Any:
    """Return ``rows`` as Arrow's table, with their dates."""
    schema = schema_of(topic)
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = list(map(pa.array, columns, schema.types))
    return dated(pa.Table.from_arrays(arrays, schema=schema))


def dated(table: Any) -> Any:
    """Return ``table`` with the dates of its rows."""
    times = table["created_at"].cast(pa.timestamp("ms"))
    return table.append_column(DATE, pc.strftime(times, format="%Y-%m-%d"))


def date_of(day: int) -> str:
    """Return the date of ``day``, counted from 1970."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _event_row(event: UserEvent, record: Record) -> Row:
    shown = event if isinstance(event, Impression) else None
    behavior = event if isinstance(event, Behavior) else None
    return (
        type_of(event),
        event.event_id,
        event.request_id if isinstance(event, Impression | Click) else None,
        event.user_id,
        None if isinstance(event, Forget | UserUpdate) else event.item_id,
        event.occurred_at,
        record.timestamp,
        shown and shown.position,
        shown and shown.model_version,
        shown and shown.score,
        shown and shown.propensity,
        json_text(shown.context) if shown and shown.context else None,
        behavior and behavior.action,
        behavior and behavior.value,
        json_text(event.attributes) if isinstance(event, UserUpdate) else None,
        record.partition,
        record.offset,
    )


def _item_row(update: ItemUpdate, record: Record) -> Row:
    return (
        update.event_id,
        update.item_id,
        update.occurred_at,
        record.timestamp,
        json_text(update.kept_attributes()),
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
