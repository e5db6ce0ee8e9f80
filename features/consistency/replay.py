"""The raw log → the rows that the store should hold, as of an offset.

In: some users or items, and an offset of their partition. Out: their events, and their rows
by the stream's own reducers. Exact and slow: for checks and for people, not for training.
"""

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    COUNTED_TYPES,
    FORGOTTEN_USER,
)
from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    database_of,
    dataset,
    read_rows,
    reading,
)
from srp4ctr.streams.raw_log.log_tables import event_of
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.duplicates import Deduplication
from srp4ctr.streams.state.reducers import fold_items, fold_total, fold_users
from srp4ctr.streams.state.user_state import UserState

Owner = Literal["user_id", "item_id"]
_SPARE = 10
Place = tuple[str, int]
"""A user or an item, and a partition."""
_TYPES: Mapping[Owner, Sequence[str]] = {
    "user_id": ("impression", "click", "behavior", "user", "forget"),
    "item_id": COUNTED_TYPES,  # what an item's counters count
}


def places(
    log_dir: Log, owner: Owner, most: int, without: Collection[int] = ()
) -> dict[Place, int]:
    """Return users of the log's partitions, or items that were shown, in random order.

    At most ``most``, drawn by a hash of each, none of the partitions ``without``. With
    each, how many events ``events_of`` would find. A log of any length takes the memory of
    those that are drawn.
    """
    salt, types = random.getrandbits(32), ", ".join(f"'{kind}'" for kind in _TYPES[owner])
    hidden = ", ".join(map(str, without)) or "-1"
    # One text: DuckDB joins the hashes of several by exclusive or, which favours some.
    drawn = f"""hash({owner} || '/' || "partition" || '/{salt}')"""
    wanted = f"""FROM logged WHERE type IN ({types}) AND {owner} <> '{FORGOTTEN_USER}'
        AND "partition" NOT IN ({hidden})"""
    with reading(log_dir), database_of(log_dir, BEHAVIOR_EVENTS_TOPIC) as database:
        counted = f'SELECT approx_count_distinct(({owner}, "partition")) {wanted}'
        [(number,)] = database.sql(counted).fetchall()
        # Twice as many as are wanted pass the filter: the number is an estimate.
        share = min(1.0, 2.0 * (most + _SPARE) / max(number, 1))
        rows = database.sql(
            f"""SELECT {owner}, "partition", count(*) {wanted}
            AND {drawn} >> 32 < {round(share * 2**32)}
            GROUP BY ALL ORDER BY any_value({drawn}) LIMIT {most}"""
        ).fetchall()
    return {(value, partition): events for value, partition, events in rows}


def events_of(
    log_dir: Log, owner: Owner, wanted: Collection[Place]
) -> dict[Place, list[LoggedEvent]]:
    """Return the events at each of ``wanted``, each offset once, in order.

    An item's include its users' erasure requests, which decide what counts.
    """
    values = pa.array(sorted({value for value, _ in wanted}), type=pa.string())
    is_wanted = pc.field(owner).isin(values) & pc.field("type").isin(_TYPES[owner])
    is_erasure = pc.field("type") == "forget"
    found: dict[Place, dict[int, LoggedEvent]] = {place: {} for place in wanted}
    erasures: dict[Place, dict[int, LoggedEvent]] = {}
    for row in _rows(log_dir, is_wanted | is_erasure):
        at = found.get((row[owner], row["partition"]))
        if at is None and row["type"] == "forget":
            at = erasures.setdefault((row["user_id"], row["partition"]), {})
        if at is not None:
            at[row["offset"]] = event_of(row)
    for (_, partition), events in found.items():
        for user_id in {event.event.user_id for event in events.values()}:
            events |= erasures.get((user_id, partition), {})
    return {
        place: [events[offset] for offset in sorted(events)]
        for place, events in found.items()
    }


def user_at(events: Iterable[LoggedEvent], offset: int, config: StreamConfig) -> UserState:
    """Return a user's row after the event at ``offset``; versions do not compare."""
    rows = fold_users({}, _judged(events, offset), config)
    return next(iter(rows.values()), UserState())


def item_share_at(events: Iterable[LoggedEvent], offset: int, partition: int) -> Activity:
    """Return an item's counters of ``partition`` after the event at ``offset``."""
    rows = fold_items({}, counted(events, offset), partition)
    return next(iter(rows.values()), Activity())


def total_share_at(log_dir: Log, offset: int, partition: int) -> Activity:
    """Return the counters of ``TOTAL_ITEM`` of ``partition`` after the event at ``offset``.

    Reads the whole partition, some rows at a time.
    """
    rule, share, types = Deduplication(), Activity(), {*_TYPES["item_id"], "forget"}
    for rows in read_rows(log_dir, BEHAVIOR_EVENTS_TOPIC, partition):
        before = [row for row in rows if row["offset"] <= offset]
        events = [event_of(each) for each in before if each["type"] in types]
        share = fold_total(share, [e for e, is_counted in rule.judge(events) if is_counted])
    return share


def counted(events: Iterable[LoggedEvent], offset: int) -> list[LoggedEvent]:
    """Return the events that count up to ``offset``: no duplicates, nothing erased."""
    return [each for each, is_counted in _judged(events, offset) if is_counted]


def _judged(events: Iterable[LoggedEvent], offset: int) -> list[tuple[LoggedEvent, bool]]:
    """Return the events up to ``offset`` that were not erased, and whether each counts."""
    return Deduplication().judge(event for event in events if event.offset <= offset)


def _rows(log_dir: Log, is_wanted: pc.Expression) -> Iterator[dict[str, Any]]:
    with reading(log_dir):
        for batch in dataset(log_dir, BEHAVIOR_EVENTS_TOPIC).to_batches(filter=is_wanted):
            yield from batch.to_pylist()
