"""A log of clicks → the same log with sampled slates, which the demo can replay.

The slates are those that training samples. Live ones are shown and ranked; those of the
history are not published, since no user was shown them.
"""

from collections.abc import Sequence
from typing import Any

import ibis
import msgspec
import pyarrow as pa

from srp4ctr.features.offline.sampled_slates import sampled_slates
from srp4ctr.streams.events.schema import Behavior, Click, Event, Impression, item_key

_COLUMNS = {
    "event_id": pa.string(),
    "user_id": pa.string(),
    "item_key": pa.int64(),
    "occurred_at": pa.int64(),
    "visible_at": pa.int64(),
}


def with_slates(events: Sequence[Event]) -> list[Event]:
    """Return ``events`` with a slate for each first click of a user on an item.

    A repeated click has none, and stays in the user's history.
    """
    clicks = [event for event in events if isinstance(event, Click)]
    acted = [event for event in events if isinstance(event, Click | Behavior)]
    ids = {item_key(event.item_id): event.item_id for event in clicks}
    slates = sampled_slates(_table(clicks), _table(acted))
    impressions = [_impression(row, ids) for row in _rows(slates)]
    requests = {
        (impression.user_id, impression.request_id, impression.item_id)
        for impression in impressions
    }
    others = [event for event in events if not isinstance(event, Impression | Click)]
    return [*impressions, *others, *(_used(click, requests) for click in clicks)]


def _impression(row: dict[str, Any], ids: dict[int, str]) -> Impression:
    item_id = ids[row["item_key"]]
    return Impression(
        event_id=f"shown-{item_key(row['request_id'] + ' ' + item_id):x}",
        request_id=row["request_id"],
        user_id=row["user_id"],
        item_id=item_id,
        position=row["position"],
        occurred_at=row["occurred_at"],
    )


def _used(click: Click, requests: set[tuple[str, str, str]]) -> Event:
    if (click.user_id, click.event_id, click.item_id) in requests:
        return msgspec.structs.replace(click, request_id=click.event_id)
    return Behavior(
        event_id=click.event_id,
        user_id=click.user_id,
        item_id=click.item_id,
        action="click",
        occurred_at=click.occurred_at,
    )


def _table(events: Sequence[Click | Behavior]) -> Any:
    columns = (
        [event.event_id for event in events],
        [event.user_id for event in events],
        [item_key(event.item_id) for event in events],
        *([event.occurred_at for event in events] for _ in range(2)),
    )
    arrays = map(pa.array, columns, _COLUMNS.values())
    return ibis.memtable(pa.table(dict(zip(_COLUMNS, arrays, strict=True))))


def _rows(slates: Any) -> list[dict[str, Any]]:
    database = ibis.duckdb.connect()
    try:
        rows: list[dict[str, Any]] = database.to_pyarrow(slates).to_pylist()
    finally:
        database.disconnect()
    return rows
