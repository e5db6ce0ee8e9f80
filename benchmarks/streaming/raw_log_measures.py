"""Commits by the hour, erasure and reading of a raw log, without a broker.

In: a folder. Out: what a commit takes after hours of them, as three workers make them every
two seconds; the bytes that an erasure writes; the rows a second that a reader gets.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.streaming.ingest_events import begin_ms, draw_events
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import Record
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log import compaction, delta_tables
from srp4ctr.streams.raw_log.delta_tables import read_rows
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.streams.raw_log.log_tables import dated, row_of, schema_of, table_of

TOPIC = BEHAVIOR_EVENTS_TOPIC
Row = dict[str, Any]
_HOUR_S = 3600.0
_ROUNDS = round(_HOUR_S / StreamConfig().log_flush_interval_s)  # an hour's, of each worker
_TIDY_EVERY = 150  # rounds: five minutes
_ROWS = 10  # of a partition in a commit: what counts is the number of commits
_DAYS, _PARTITIONS, _EVENTS, _ERASED = 5, 4, 2, 100  # of the log that is erased from
_DAY_MS = 86_400_000


def make_commits(log: Path, hours: float, partitions: int, workers: int) -> Iterator[Row]:
    """Make the commits of ``hours`` one after another; yield what each hour was like."""
    rows = [_rows(partition) for partition in range(partitions)]
    tables = [delta_tables.created(log, TOPIC) for _ in range(workers)]
    took_ms: list[float] = []
    written = 0
    began = time.process_time()
    for number in range(1, round(hours * _ROUNDS) + 1):
        for worker, delta in enumerate(tables):
            own = range(worker, partitions, workers)
            ends = range((number - 1) * _ROWS, number * _ROWS)
            batch = table_of(TOPIC, [row for each in own for row in rows[each]])
            started = time.perf_counter()
            assert delta_tables.append(delta, batch, dict.fromkeys(own, ends))
            took_ms.append(1e3 * (time.perf_counter() - started))
        if number % _TIDY_EVERY == 0:
            for partition in range(partitions):
                compaction.compact(log, TOPIC, partition)
        if number % _ROUNDS == 0 or number == round(hours * _ROUNDS):
            used_s, began = time.process_time() - began, time.process_time()
            yield {
                "hour": -(-number // _ROUNDS),
                **_figures(log, took_ms, written),
                "cpu_ms": round(1e3 * used_s / len(took_ms), 1),
            }
            took_ms.clear()
            written = _own_bytes(log)


def _rows(partition: int) -> list[Any]:
    events = draw_events(100, seed=partition, start_ms=begin_ms())[:_ROWS]
    return [
        row_of(
            Record(
                topic=TOPIC,
                value=msgspec.json.encode(event),
                key=event.user_id.encode(),
                timestamp=event.occurred_at,
                partition=partition,
                offset=offset,
            )
        )
        for offset, event in enumerate(events)
    ]


def _figures(log: Path, took_ms: list[float], written: int) -> Row:
    """Return what the commits took, and how much the table's own log has grown."""
    own = log / TOPIC / "_delta_log"
    checkpoints = [each.stat().st_size for each in sorted(own.glob("*.checkpoint.parquet"))]
    began = time.perf_counter()
    table = delta_tables.opened(log, TOPIC)
    open_ms = 1e3 * (time.perf_counter() - began)
    assert table is not None
    p50, p99 = np.percentile(took_ms, (50, 99)).tolist()
    return {
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "open_ms": round(open_ms, 1),
        "files": len(table.file_uris()),
        "checkpoint_mb": checkpoints[-1] / 1e6,
        "written_mb": (_own_bytes(log) - written) / 1e6,
    }


def _own_bytes(log: Path) -> int:
    """Return the size of the table's own log, of which nothing expires within an hour."""
    return sum(each.stat().st_size for each in (log / TOPIC / "_delta_log").glob("*.*"))


def write_users(log: Path, users: int) -> None:
    """Write behaviours of ``users`` over days and partitions, and ask to erase some."""
    table = delta_tables.created(log, TOPIC)
    today = int(datetime.now(UTC).timestamp() * 1000) // _DAY_MS * _DAY_MS
    per_date = users * _EVENTS // (_DAYS * _PARTITIONS)
    draw = np.random.default_rng(1)
    for partition in range(_PARTITIONS):
        for day in range(_DAYS):
            start = day * per_date
            numbers = draw.integers(users // _PARTITIONS, size=per_date)
            ids = _texts("u", numbers * _PARTITIONS + partition)
            at_ms = today - (_DAYS - day) * _DAY_MS
            rows = _events("behavior", ids, at_ms, partition, start)
            taken = range(start, start + per_date)
            assert delta_tables.append(table, rows, {partition: taken})
        erased = np.arange(_ERASED // _PARTITIONS) * _PARTITIONS + partition
        rows = _events("forget", _texts("u", erased), today, partition, _DAYS * per_date)
        taken = range(taken.stop, taken.stop + len(rows))
        assert delta_tables.append(table, rows, {partition: taken})


def _texts(before: str, numbers: Any) -> pa.Array:
    return pc.binary_join_element_wise(before, pa.array(numbers).cast(pa.string()), "")


def _events(kind: str, users: pa.Array, at_ms: int, partition: int, start: int) -> pa.Table:
    """Return an event of each of ``users`` as rows of the table."""
    count = len(users)
    offsets = np.arange(start, start + count)
    known = {
        "type": pa.array([kind] * count),
        "event_id": _texts(f"{partition}-", offsets),
        "user_id": users,
        "occurred_at": pa.array(np.full(count, at_ms)),
        "created_at": pa.array(np.full(count, at_ms)),
        "partition": pa.array(np.full(count, partition)),
        "offset": pa.array(offsets),
    }
    if kind == "behavior":
        known["item_id"] = _texts("i", offsets % 5000)
        known["action"] = pa.array(["view"] * count)
    schema = schema_of(TOPIC)
    columns = [known.get(each.name, pa.nulls(count, each.type)) for each in schema]
    return dated(pa.Table.from_arrays(columns, schema=schema))


def erase_users(log: Path) -> Row:
    """Erase who asked for it, and read all that is left."""
    before = _sizes(log)
    began = time.perf_counter()
    done = erase_forgotten(log)
    took_s = time.perf_counter() - began
    after = _sizes(log)
    assert done.users == _ERASED
    began = time.perf_counter()
    read = sum(
        len(rows)
        for partition in range(_PARTITIONS)
        for rows in read_rows(log, TOPIC, partition)
    )
    return {
        "erased_mb": sum(size for name, size in after.items() if name not in before) / 1e6,
        "whole_mb": sum(before.values()) / 1e6,
        "erase_s": round(took_s, 2),
        "scan_rows_per_s": round(read / (time.perf_counter() - began)),
    }


def _sizes(log: Path) -> dict[str, int]:
    return {
        str(file): file.stat().st_size for file in log.glob(f"{TOPIC}/date=*/**/*.parquet")
    }
