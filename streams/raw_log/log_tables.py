"""Records → rows of the raw log, a flat table per topic. And back: events."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from srp4ctr.streams.events.codec import (
    LoggedEvent,
    Record,
    RejectedEvent,
    decode_published,
)
from srp4ctr.streams.events.schema import (
    AVAILABLE,
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    NOT_AVAILABLE,
    Event,
    ItemUpdate,
    UserEvent,
    json_text,
)
from srp4ctr.streams.state.label_join import ImpressionLabel, decode_label

Row = tuple[Any, ...]
DATE = "date"  # of the record's timestamp, in UTC
_PLACE = ("created_at", "partition", "offset")  # created_at: the record's timestamp
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    BEHAVIOR_EVENTS_TOPIC: (
        "type",
        "event_id",
        "request_id",
        "user_id",
        "item_id",
        "occurred_at",
        "position",
        "model_version",
        "experiment",
        "arm",
        "score",
        "propensity",
        "context",
        "numbers",
        "action",
        "value",
        "attributes",
        *_PLACE,
    ),
    ITEMS_TOPIC: ("event_id", "item_id", "occurred_at", "attributes", *_PLACE),
    LABELS_TOPIC: (*ImpressionLabel.__struct_fields__, *_PLACE),
}
_TIMES = ("occurred_at", "created_at", "impression_at", "matured_at")  # UTC milliseconds
_TYPES = {  # of a column wherever it is; any other is text, as JSON where it has fields
    **dict.fromkeys((*_TIMES, "position", "revision", *_PLACE), pa.int64()),
    **dict.fromkeys(("score", "propensity", "value"), pa.float64()),
    **dict.fromkeys(("clicked", "within_window"), pa.bool_()),
}


def schema_of(topic: str) -> Any:
    """Return the Arrow schema of ``topic``'s table, without the date."""
    return pa.schema((name, _TYPES.get(name, pa.string())) for name in _COLUMNS[topic])


def row_of(record: Record) -> Row | None:
    """Return ``record`` as a row of its topic's table; None if it is not an event."""
    event = _decoded(record)
    if event is None or isinstance(event, RejectedEvent):
        return None
    row = msgspec.structs.asdict(event)
    if isinstance(event, ItemUpdate):
        row["attributes"] = event.kept_attributes()
    if "attributes" in row:
        row["attributes"] = json_text(row["attributes"])
    for name in ("context", "numbers"):
        row[name] = json_text(row[name]) if row.get(name) else None
    row["type"] = event.__struct_config__.tag
    place = (record.timestamp, record.partition, record.offset)
    row.update(zip(_PLACE, place, strict=True))
    return tuple(map(row.get, _COLUMNS[record.topic]))


def _decoded(record: Record) -> Event | ImpressionLabel | RejectedEvent | None:
    if record.topic != LABELS_TOPIC:
        return decode_published(record)
    try:
        return decode_label(record.value or b"")
    except ValueError:  # only our own worker writes here
        return None


def event_of(row: Mapping[str, Any]) -> LoggedEvent:
    """Return the event that ``row`` of ``behavior-events`` was made of."""
    known = {name: value for name, value in row.items() if value is not None}
    for name in ("context", "numbers", "attributes"):
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
