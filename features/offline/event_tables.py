"""The raw event log → Ibis tables, on DuckDB or Spark: the one way to read it.

In: the log that ``streams.raw_log.log_writer`` writes, as it is when it is opened. Out:
lazy tables, from which ``features.offline.point_in_time`` computes features; nothing is
read before ``rows``.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import duckdb
import ibis
import pyarrow as pa
from ibis import _

from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    NO_CODES,
    ActionCodes,
    action_code,
    item_key,
)
from srp4ctr.streams.raw_log.delta_tables import Log, dataset, reading
from srp4ctr.streams.raw_log.log_tables import schema_of

Table = Any  # ibis.Table, which has no types
Engine = Literal["duckdb", "spark"]

_LAST_OFFSET = (1 << 63) - 1
_ROWS_A_GB = 8_000_000  # of some 60 bytes: half of the memory
IDENTITY = ("user_id", "request_id", "item_key")  # of an impression, and of its click


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """The tables of one log; times are UTC milliseconds."""

    database: Any
    """The engine that runs the expressions: a backend of Ibis."""
    rows_at_once: int
    """How many rows one expression of many steps may have, for the engine's memory."""
    events: Table
    """Impressions, clicks and behaviours: the log's columns, and item_key, action_code (0:
    none) and visible_at, the time after which a request can see the event."""
    shown: Table
    """The impressions of which examples are made: those of ``events`` whose label window
    has closed, or sampled ones."""
    labels: Table
    """user_id, request_id, item_key, clicked, log_draw: the strongest label of each
    impression, its newest revision. A click after the window corrects what the window
    said. log_draw is 0 for what was shown, else that of ``sampled_slates``."""
    items: Table
    """Item updates as published, with item_key; several updates of an item are rows."""
    profiles: Table
    """Users' updates: the log's columns, and visible_at as of events."""
    action_codes: ActionCodes
    """``streams.action_codes``, of which ``action_code`` is."""
    erasures: Table
    """user_id, until_ms, offset, next_offset: each request that covers more than those of
    the user before it, and where the next one is."""
    forgotten: Table
    """user_id, until_ms, offset: each user's last erasure request, which covers all events
    of the user until then, whenever they arrived."""

    def rows(self, table: Table) -> pa.Table:
        """Return the rows of ``table``."""
        return self.database.to_pyarrow(table)

    def keep(self, table: Table) -> Table:
        """Return ``table`` computed, for several expressions."""
        return _kept(self.database, table)

    @contextmanager
    def kept(self, table: Table, *, is_part: bool = True) -> Iterator[Table]:
        """Yield ``table`` computed, for the expressions of the block.

        Not computed where it is no part but all: the memory does for more steps at once.
        """
        if not is_part:
            yield table
            return
        computed = self.keep(table)
        yield computed
        if self.database.name == "duckdb":  # Spark lets go of what it needs no more
            # ``drop_table`` of ibis 12 with sqlglot 30 names no table.
            self.database.raw_sql(f"DROP TABLE {computed.get_name()}")

    def parts(self, column: str, rows: int) -> list[Table]:
        """Return a condition for each part of ``rows`` rows: together they are all rows.

        Equal values of ``column`` are in the same part.
        """
        count = max(1, -(-rows // self.rows_at_once))
        return [(_[column].hash() % count).abs() == part for part in range(count)]

    def remembered(self, table: Table) -> Table:
        """Return the rows of ``table`` (user_id, occurred_at, …) that no erasure covers."""
        joined = table.left_join(self.forgotten, "user_id")
        until_ms = joined.until_ms.fill_null(0)
        return joined.filter(joined.occurred_at > until_ms).select(*table.columns)

    def since_erasure(self, table: Table) -> Table:
        """Return the rows of ``table`` that came after their users' last request."""
        joined = table.left_join(self.forgotten, "user_id")
        requested_at = joined.offset_right.fill_null(-1)
        return joined.filter(joined.offset > requested_at).select(*table.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What DuckDB may use; Spark has settings of its own."""

    memory_gb: float = 4.0
    temp_dir: str = ""
    """For what does not fit into memory; "": the system's."""


@contextmanager
def opened_by(config: FeatureConfig) -> Iterator[EventLog]:
    """Open the log that ``config`` names, with its engine and limits."""
    limits = Limits(memory_gb=config.offline_memory_gb, temp_dir=config.offline_temp_dir)
    codes = config.action_codes
    with opened(config.raw_log, config.offline_engine, limits, codes) as log:
        yield log


@contextmanager
def opened(
    log_dir: Log,
    engine: Engine = "duckdb",
    limits: Limits | None = None,
    codes: ActionCodes = NO_CODES,
) -> Iterator[EventLog]:
    """Open the log in ``log_dir``; an absent log is an empty one.

    ``codes`` are ``streams.action_codes``, with which the worker stores behaviours.
    Every expression reads the snapshot of that moment. ``spark`` takes the session that
    there is, or starts one as Spark's own settings say.
    Raises ``MistakeError`` where pyspark is not installed or DuckDB's memory does not do,
    and what ``reading`` raises.
    """
    limits = limits or Limits()
    rows_at_once = (
        round(limits.memory_gb * _ROWS_A_GB) if engine == "duckdb" else sys.maxsize
    )
    with reading(log_dir), _connected(engine, limits) as database:
        try:
            yield _tables(database, log_dir, rows_at_once, codes)
        except duckdb.OutOfMemoryException as error:
            raise MistakeError(
                f"the log in {log_dir} needs more memory than the limit, "
                f"features.offline_memory_gb = {limits.memory_gb:g}: raise it, or set "
                "features.offline_engine = 'spark'"
            ) from error


@contextmanager
def _connected(engine: Engine, limits: Limits) -> Iterator[Any]:
    if engine == "spark":
        yield ibis.pyspark.connect(_session())
        return
    folder = limits.temp_dir or None
    with tempfile.TemporaryDirectory(prefix="srp4ctr-", dir=folder) as spilled:
        database = ibis.duckdb.connect(
            memory_limit=f"{limits.memory_gb}GB",
            temp_directory=spilled,
        )
        database.raw_sql("SET enable_progress_bar = false")  # one a query, amid our own
        try:
            yield database
        finally:
            database.disconnect()


def _session() -> Any:
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise MistakeError(
            "features.offline_engine is 'spark', which needs pyspark and Java 17: "
            "pip install 'srp4ctr[spark]'"
        ) from error
    return SparkSession.builder.appName("srp4ctr").getOrCreate()


def _kept(database: Any, table: Table) -> Table:
    """Return ``table`` computed: for Spark, a view whose rows it keeps once they are."""
    name = ibis.util.gen_name("kept")
    if database.name != "pyspark":
        return database.create_table(name, table, temp=True)
    view = database.create_view(name, table)  # it has no temporary tables
    _session().table(name).cache()
    return view.cast(table.schema())  # Spark's row_number is an int of 32 bits


def _tables(
    database: Any, log_dir: Log, rows_at_once: int, assigned: ActionCodes
) -> EventLog:
    topics = (BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, ITEMS_TOPIC)
    events, labels, items = (_read(database, log_dir, topic) for topic in topics)
    forgets = events.filter(events.type == "forget")
    erasures = _kept(database, _effective(forgets))
    events = events.mutate(visible_at=ibis.greatest(events.occurred_at, events.created_at))
    profiles = events.filter(events.type == "user")
    events = events.filter(~events.type.isin(["forget", "user"]))
    ids = ibis.union(events.select("item_id"), items.select("item_id"))
    keys = _computed(database, ids, "item_id", item_key=item_key)
    actions = events.select(action=_action(events))
    code_of = partial(action_code, codes=assigned)
    codes = _computed(database, actions, "action", action_code=code_of)
    events = events.mutate(action=_action(events))
    events = events.inner_join(keys, "item_id").left_join(codes, "action")
    labels = labels.inner_join(keys, "item_id")
    events = events.mutate(action_code=events.action_code.fill_null(0))
    return EventLog(
        database=database,
        rows_at_once=rows_at_once,
        events=events,
        shown=_matured(database, events, labels),
        labels=labels.group_by(*IDENTITY).aggregate(
            clicked=lambda each: each.clicked.argmax(each.revision),
            log_draw=ibis.literal(0.0),
        ),
        items=items.inner_join(keys, "item_id"),
        profiles=profiles,
        action_codes=assigned,
        erasures=erasures,
        forgotten=erasures.group_by("user_id").aggregate(
            until_ms=erasures.until_ms.max(), offset=erasures.offset.max()
        ),
    )


def _matured(database: Any, events: Table, labels: Table) -> Table:
    """Return the impressions whose label window has closed.

    A click is known at once, and that there was none at the window's end: while windows are
    open, only the clicked impressions have a label. Windows close in the order of time, by
    partition. So the first impression without a label after the newest one that was not
    clicked is where open windows begin.
    """
    closed = labels.filter(~_.clicked).group_by("partition")
    closed = closed.aggregate(closed_ms=_.impression_at.max())
    shown = events.filter(_.type == "impression")
    newer = shown.left_join(closed, "partition").drop("partition_right")
    newer = newer.filter(_.occurred_at > _.closed_ms.fill_null(0))
    waiting = newer.anti_join(labels, IDENTITY).group_by("partition")
    waiting = _kept(database, waiting.aggregate(open_ms=_.occurred_at.min()))
    joined = shown.left_join(waiting, "partition")
    return joined.filter(_.open_ms.isnull() | (_.occurred_at < _.open_ms)).select(
        *shown.columns
    )


def _effective(forgets: Table) -> Table:
    """Return the erasure requests that cover more than those of their users before."""
    by_user = {"group_by": "user_id", "order_by": "offset"}
    before = ibis.window(**by_user, preceding=(None, 1))
    covered_ms = forgets.occurred_at.max().over(before).fill_null(0)
    more = forgets.mutate(covered_ms=covered_ms).filter(_.occurred_at > _.covered_ms)
    following = _.offset.lead().over(ibis.window(**by_user)).fill_null(_LAST_OFFSET)
    return more.select("user_id", "offset", until_ms="occurred_at", next_offset=following)


def _read(database: Any, log_dir: Log, topic: str) -> Table:
    """Return the topic's table; columns that its files lack are null."""
    rows, schema = dataset(log_dir, topic), schema_of(topic)
    view = topic.replace("-", "_")
    files = [f"{log_dir}/{topic}/{path}" for path in getattr(rows, "files", ())]
    if not files:
        return ibis.memtable(schema.empty_table())
    if database.name == "pyspark":
        reader = _session().read.option("basePath", f"{log_dir}/{topic}")
        found = reader.option("mergeSchema", True).parquet(*files)
        found.createOrReplaceTempView(view)
    elif "://" in str(log_dir):
        database.con.register(view, rows)  # DuckDB alone cannot read there
    else:  # faster than through Arrow
        each_file: dict[str, Any] = {"union_by_name": True, "hive_partitioning": True}
        database.read_parquet(files, table_name=view, **each_file)
    found = database.table(view)
    return found.select(
        (found[name] if name in found.columns else ibis.null()).cast(dtype).name(name)
        for name, dtype in ibis.Schema.from_pyarrow(schema).items()
    )


def _action(events: Table) -> Any:
    """A click is an action too; an impression is none."""
    return ibis.ifelse(events.type == "click", "click", events.action)


def _computed(
    database: Any, table: Table, column: str, **function: Callable[[str], int]
) -> Table:
    """Return the distinct values of ``column`` and what ``function`` makes of each."""
    [(name, compute)] = function.items()
    distinct = table.filter(table[column].notnull()).select(column).distinct()
    values = database.to_pyarrow(distinct)[column].to_pylist()
    numbers = pa.array([compute(value) for value in values], type=pa.int64())
    return ibis.memtable(
        pa.table({column: pa.array(values, type=pa.string()), name: numbers})
    )
