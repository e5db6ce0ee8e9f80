"""The raw event log (Parquet) → columns, for training and for checks.

In: the folder that ``streams.event_log`` writes. Out: one array per column; strings that
repeat come as codes. A message that was delivered twice is one row; an event that its
producer published twice is two, as it was for the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streams.events import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    action_code,
    item_key,
)

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Objects = NDArray[np.object_]

IMPRESSION, CLICK, BEHAVIOR = 0, 1, 2
_KINDS = {"impression": IMPRESSION, "click": CLICK, "behavior": BEHAVIOR}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """A column of strings: ``names[codes]``; code -1 is None."""

    codes: Int64s
    names: Objects

    def strings(self) -> Objects:
        """Return the column as strings and None."""
        named: Objects = np.array([*self.names, None], dtype=object)
        return named[self.codes]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventColumns:
    """n events in the order of their partitions' offsets."""

    kinds: Int64s
    """IMPRESSION, CLICK or BEHAVIOR."""
    users: Coded
    items: Coded
    requests: Coded
    """None for a behaviour."""
    contexts: Coded
    """JSON; None for all but impressions that have one."""
    item_keys: Int64s
    action_codes: Int64s
    """0 for an impression."""
    values: Floats
    """NaN: no value."""
    positions: Int64s
    """-1 for all but impressions."""
    occurred_at_ms: Int64s
    created_at_ms: Int64s
    """The record's timestamp: when the event became known."""

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def visible_at_ms(self) -> Int64s:
        """The time after which a request can see the event: it happened and is known."""
        return np.maximum(self.occurred_at_ms, self.created_at_ms)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelColumns:
    """The strongest label of each (user, request, item)."""

    request_ids: Objects
    user_ids: Objects
    item_ids: Objects
    clicked: NDArray[np.bool_]
    within_window: NDArray[np.bool_]
    positions: Int64s
    impression_at_ms: Int64s
    matured_at_ms: Int64s
    revisions: Int64s
    model_versions: Objects

    def __len__(self) -> int:
        return len(self.clicked)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemColumns:
    """Item updates as published; several of one item are so many rows."""

    item_ids: Objects
    item_keys: Int64s
    attributes: Objects
    """JSON."""
    occurred_at_ms: Int64s
    created_at_ms: Int64s


def read_events(log_dir: Path) -> EventColumns:
    """Return all events of the log; an absent log is an empty one."""
    table = _read(log_dir, BEHAVIOR_EVENTS_TOPIC)
    kinds, items, actions = (_coded(table[name]) for name in ("type", "item_id", "action"))
    kind_of_name = np.array([_KINDS[name] for name in kinds.names], dtype=np.int64)
    kind = kind_of_name[kinds.codes]
    # One code more for rows without an action (index -1): clicks have the click's.
    code_of_name = np.array([*map(action_code, actions.names), 0], dtype=np.int64)
    codes = np.where(kind == CLICK, action_code("click"), code_of_name[actions.codes])
    keys = np.array([item_key(name) for name in items.names], dtype=np.int64)
    return EventColumns(
        kinds=kind,
        users=_coded(table["user_id"]),
        items=items,
        requests=_coded(table["request_id"]),
        contexts=_coded(table["context"]),
        item_keys=keys[items.codes],
        action_codes=codes,
        values=_numbers(table["value"], np.nan),
        positions=_numbers(table["position"], -1),
        occurred_at_ms=_numbers(table["occurred_at"], 0),
        created_at_ms=_numbers(table["created_at"], 0),
    )


def read_labels(log_dir: Path) -> LabelColumns:
    """Return the strongest label of each impression: its greatest revision."""
    table = _read(log_dir, LABELS_TOPIC)
    names = ("user_id", "request_id", "item_id")
    keys = [_coded(table[name]).codes for name in names]
    revisions = _numbers(table["revision"], 0)
    order = np.lexsort([revisions, *keys])
    ordered = np.stack([key[order] for key in keys])
    is_last = np.append(np.any(ordered[:, 1:] != ordered[:, :-1], axis=0), True)
    table = table.take(np.sort(order[is_last[: len(order)]]))
    return LabelColumns(
        request_ids=_objects(table["request_id"]),
        user_ids=_objects(table["user_id"]),
        item_ids=_objects(table["item_id"]),
        clicked=_numbers(table["clicked"], False),
        within_window=_numbers(table["within_window"], False),
        positions=_numbers(table["position"], -1),
        impression_at_ms=_numbers(table["impression_at"], 0),
        matured_at_ms=_numbers(table["matured_at"], 0),
        revisions=_numbers(table["revision"], 0),
        model_versions=_objects(table["model_version"]),
    )


def read_items(log_dir: Path) -> ItemColumns:
    """Return all item updates of the log."""
    table = _read(log_dir, ITEMS_TOPIC)
    items = _coded(table["item_id"])
    keys = np.array([item_key(name) for name in items.names], dtype=np.int64)
    return ItemColumns(
        item_ids=items.strings(),
        item_keys=keys[items.codes],
        attributes=_objects(table["attributes"]),
        occurred_at_ms=_numbers(table["occurred_at"], 0),
        created_at_ms=_numbers(table["created_at"], 0),
    )


_SCHEMAS = {
    BEHAVIOR_EVENTS_TOPIC: {
        **dict.fromkeys(("type", "user_id", "item_id", "request_id"), pa.string()),
        **dict.fromkeys(("context", "action"), pa.string()),
        **dict.fromkeys(("occurred_at", "created_at", "position"), pa.int64()),
        "value": pa.float64(),
    },
    LABELS_TOPIC: {
        **dict.fromkeys(("request_id", "user_id", "item_id"), pa.string()),
        **dict.fromkeys(("position", "impression_at", "matured_at"), pa.int64()),
        **dict.fromkeys(("clicked", "within_window"), pa.bool_()),
        "revision": pa.int64(),
        "model_version": pa.string(),
    },
    ITEMS_TOPIC: {
        **dict.fromkeys(("item_id", "attributes"), pa.string()),
        **dict.fromkeys(("occurred_at", "created_at"), pa.int64()),
    },
}
_PLACE = {"partition": pa.int64(), "offset": pa.int64()}


def _read(log_dir: Path, topic: str) -> Any:
    """Return the topic's table by partition and offset, each offset once."""
    schema = pa.schema(_SCHEMAS[topic] | _PLACE)
    # A file that is being written ends in .tmp until it is whole.
    files: Sequence[Path] = sorted((log_dir / topic).glob("date=*/*.parquet"))
    tables = [pq.ParquetFile(path).read(schema.names).cast(schema) for path in files]
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    place = np.stack([_numbers(table[name], 0) for name in _PLACE], axis=1)
    _, first = np.unique(place, axis=0, return_index=True)
    return table.take(first).combine_chunks()


def _coded(column: Any) -> Coded:
    encoded = pc.dictionary_encode(column.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return Coded(codes=codes, names=_objects(encoded.dictionary))


def _objects(column: Any) -> Objects:
    return np.array(column.to_pylist(), dtype=object)


def _numbers(column: Any, absent: float) -> NDArray[Any]:
    filled = column.fill_null(absent)
    numbers: NDArray[Any] = filled.to_numpy()
    return numbers
