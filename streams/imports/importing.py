"""Files and a mapping → a file of events, and a report: what came of them, what did not.

One pass: DuckDB computes each rule's columns, rows pass one by one, and nothing is held
but a window of event ids. A file of events is whole or absent.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.mapping import Items, Mapping, Rule
from srp4ctr.streams.imports.rows import BadRow, EventBuilder
from srp4ctr.streams.imports.sinks import EventSink, writing
from srp4ctr.streams.imports.tables import (
    Column,
    Table,
    explained,
    files_in,
    open_table,
    opened,
    quoted,
)

PREVIEWED = 3
DUPLICATE, NO_RULE = "duplicate", "no rule"
_NO_ATTRIBUTE = "no attribute"
NOT_BAD = (DUPLICATE, NO_RULE, _NO_ATTRIBUTE)  # nothing is wrong with these rows
_WINDOW = 500_000  # events within which the stream, too, recognizes a duplicate
_MAX_PLACES = 5
_FIELDS = {
    "user": "user_id",
    "item": "item_id",
    "time": "occurred_at",
    "request": "request_id",
    "position": "position",
    "action": "action",
    "value": "value",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """What to import, and how."""

    files: Sequence[str]
    mapping: Mapping
    out: Path | None = None
    """The file of events to write, JSON lines or Parquet. None: only the report."""
    skip_bad: bool = False


@dataclass(slots=True, kw_only=True)
class Dropped:
    """Rows that became no event, for one reason."""

    rows: int = 0
    places: list[str] = field(default_factory=list)
    """The first of them."""
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What came of the files."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Events by kind and action."""
    dropped: dict[str, Dropped] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    preview: list[bytes] = field(default_factory=list)
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def num_bad(self) -> int:
        """Rows with which something is wrong."""
        return sum(d.rows for why, d in self.dropped.items() if why not in NOT_BAD)

    def drop(self, reason: str, place: str, detail: str = "") -> None:
        """Count a row that is no event."""
        dropped = self.dropped.setdefault(reason, Dropped(detail=detail))
        dropped.rows += 1
        if len(dropped.places) < _MAX_PLACES:
            dropped.places.append(place)


Progress = Callable[[int], None]
"""Called with the number of rows so far."""


def import_files(job: ImportJob, progress: Progress = lambda _: None) -> ImportReport:
    """Write the events of ``job`` and return the report.

    With bad rows nothing is written, unless ``skip_bad``: see ``refuse_bad``. Raises
    ``MistakeError`` where a file or the mapping cannot be read.
    """
    report = ImportReport()
    mapping = job.mapping
    catalogue = mapping.items.files if mapping.items else []
    paths = files_in(job.files, [*mapping.files, *catalogue] if mapping.files else ())
    with opened(paths) as database:
        tables = [
            open_table(database, path, mapping.csv, number=n, skip_bad=job.skip_bad)
            for n, path in enumerate(paths)
        ]
        run = _Run(job=job, tables=tables, report=report, progress=progress)
        with writing(job.out, sort=mapping.sort) as sink:
            run.everything(sink)
            _rejected_lines(database, tables, report)
            sink.discarded = bool(report.num_bad and not job.skip_bad)
    if not report.counts and not report.num_bad:
        raise MistakeError(f"no event came of {report.rows:,} rows{_why_none(report)}")
    return report


def refuse_bad(report: ImportReport, skip_bad: bool) -> None:
    """Raise ``MistakeError`` where bad rows kept everything from being imported."""
    if not report.num_bad or skip_bad:
        return
    first = next(d for why, d in report.dropped.items() if why not in NOT_BAD)
    times = sum(d.rows for why, d in report.dropped.items() if why.startswith("time_"))
    mixed = " Some times are of another unit than the others." if times else ""
    mixed = mixed if report.counts else ""
    raise MistakeError(
        f"{report.num_bad:,} of {report.rows:,} rows are bad, the first is "
        f"{first.places[0]}: {first.detail}.{mixed} Nothing was imported; --skip-bad "
        "imports the others"
    )


@dataclass(slots=True, kw_only=True)
class _Compiled:
    """One rule on one table: for each field the number of its column in the query."""

    rule: Rule
    where: int | None
    fields: dict[str, int]
    context: dict[str, int]
    action: str | None
    time_kind: str

    def values(self, row: tuple[Any, ...], event_id: str) -> dict[str, Any]:
        """Return the fields of the event of ``row``."""
        values = {name: row[index] for name, index in self.fields.items()}
        values["event_id"] = event_id
        if self.action is not None:
            values["action"] = self.action
        if self.context:
            context = {name: row[index] for name, index in self.context.items()}
            values["context"] = {n: str(v) for n, v in context.items() if v is not None}
        return values


@dataclass(slots=True)
class _Query:
    """The columns of one pass over a table; equal expressions are computed once."""

    table: Table
    view: str
    columns: dict[str, int] = field(default_factory=dict)

    def add(self, sql: str) -> int:
        return self.columns.setdefault(sql, len(self.columns))

    @property
    def text(self) -> str:
        """The SQL of the pass."""
        named = ", ".join(f"{sql} AS c{number}" for sql, number in self.columns.items())
        return f"SELECT {named} FROM {self.view}"


@dataclass(slots=True, kw_only=True)
class _Run:
    job: ImportJob
    tables: Sequence[Table]
    report: ImportReport
    progress: Progress
    builder: EventBuilder = field(init=False)
    seen: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))

    def __post_init__(self) -> None:
        self.builder = EventBuilder(self.job.mapping, time.time_ns() // 1_000_000)

    def everything(self, sink: EventSink) -> None:
        """Import the events of each table, then the items' attributes."""
        mapping, rules = self.job.mapping, self.job.mapping.rules()
        catalogues = mapping.items.files if mapping.items else []
        work = []
        for table in self.tables:
            if _matches(table.path, catalogues):
                continue
            own = [r for r in rules if not r.files or _matches(table.path, r.files)]
            if not own:
                self.report.notes.append(
                    f"{table.path.name} is not of this mapping's files"
                )
            for each in dict.fromkeys(_key(rule) for rule in own):
                same = [rule for rule in own if _key(rule) == each]
                work.append(_compiled(mapping, table, same))
        for query, compiled in work:  # all are compiled before the first row is read
            self._events(query, compiled, sink)
        if mapping.items:
            self._items(mapping.items, sink)

    def _events(
        self, query: _Query, compiled: Sequence[_Compiled], sink: EventSink
    ) -> None:
        table = query.table
        for row in table.rows(query.text):
            self._count_row()
            is_any = False
            for rule in compiled:
                if rule.where is not None and not row[rule.where]:
                    continue
                is_any = True
                event_id = row[1] if row[2] is None else f"{row[1]}-{row[2]}"
                values = rule.values(row, event_id)
                built = self.builder.build(rule.rule.type, values, rule.time_kind)
                self._take(built, table, row[0], sink)
            if not is_any:
                self.report.drop(NO_RULE, _place(table, row[0]), "no condition holds")

    def _items(self, items: Items, sink: EventSink) -> None:
        tables = [
            table
            for table in self.tables
            if not items.files or _matches(table.path, items.files)
        ]
        if not tables:
            self.report.notes.append(
                f"no catalogue ({', '.join(items.files)}): items have no attributes"
            )
        for table in tables:
            time_kind, query = _item_query(items, table, self.job.mapping)
            default_ms = self.report.first_ms or int(table.path.stat().st_mtime * 1000)
            for row in table.rows(query):
                line, item, at, named, *values = row
                if items.files:
                    self._count_row()
                if item is None:
                    self.report.drop("missing_field", _place(table, line), "no item id")
                    continue
                attributes = dict(zip(items.attributes, values, strict=True))
                for pair in msgspec.json.decode(named) or () if named else ():
                    attributes[pair["name"]] = pair["value"]
                built: bytes | BadRow | None
                try:
                    kind = time_kind or "number"
                    ms = default_ms if at is None else self.builder.clock.millis(at, kind)
                    built = self.builder.build_item(item, ms, attributes)
                except ValueError as error:
                    built = BadRow(reason="invalid_field", detail=str(error))
                if built is None:
                    self.report.drop(_NO_ATTRIBUTE, _place(table, line), "all are empty")
                else:
                    self._take(built, table, line, sink)

    def _take(
        self, built: bytes | BadRow, table: Table, line: int, sink: EventSink
    ) -> None:
        report = self.report
        if isinstance(built, BadRow):
            report.drop(built.reason, _place(table, line), built.detail)
            return
        event = _Published.decode(built)
        if self._is_known(hash(event.event_id)):
            report.drop(DUPLICATE, _place(table, line), "the same row was there before")
            return
        name = f"{event.type} {event.action}" if event.action else event.type
        report.counts[name] += 1
        if event.type != "item":
            at = event.occurred_at
            report.first_ms = min(report.first_ms or at, at)
            report.last_ms = max(report.last_ms or at, at)
        if len(report.preview) < PREVIEWED:
            report.preview.append(built)
        sink.write(event.occurred_at, built)

    def _is_known(self, key: int) -> bool:
        """Return whether ``key`` was among the last events; at least ``_WINDOW`` of them."""
        newer, older = self.seen
        if key in newer or key in older:
            return True
        newer.add(key)
        if len(newer) >= _WINDOW:
            self.seen = (set(), newer)
        return False

    def _count_row(self) -> None:
        self.report.rows += 1
        if self.report.rows % 5_000 == 0:
            self.progress(self.report.rows)


class _Fields(msgspec.Struct):
    type: str
    event_id: str
    occurred_at: int
    action: str = ""


_Published = msgspec.json.Decoder(_Fields)


def _key(rule: Rule) -> tuple[str, ...]:
    each = rule.each or ()
    return (each,) if isinstance(each, str) else tuple(each)


def _compiled(
    mapping: Mapping, table: Table, rules: Sequence[Rule]
) -> tuple[_Query, list[_Compiled]]:
    """Return one pass over ``table`` and where each rule finds its fields in it."""
    view, index = table.view, "NULL"
    if each := rules[0].each:
        column = table.resolve("each", each)
        view = (
            f"(SELECT *, unnest({column.sql}) AS each, "
            f"generate_subscripts({column.sql}, 1) - 1 AS each_index FROM {view})"
        )
        index = "each_index"
    query = _Query(table=table, view=view)
    for sql in ("__row", "__hash", index):
        query.add(sql)
    return query, [_compiled_rule(mapping, query, rule) for rule in rules]


def _compiled_rule(mapping: Mapping, query: _Query, rule: Rule) -> _Compiled:
    def column(name: str, given: Any) -> Column:
        is_number = name in ("time", "value", "position")
        return query.table.resolve(name, given, view=query.view, is_number=is_number)

    where = None
    if rule.where is not None and rule.where != "true":
        where = query.add(f"CAST({column(rule.type, rule.where).sql} AS BOOLEAN)")
    fields, action, time_kind = {}, None, "number"
    for name, event_field in _FIELDS.items():
        given = getattr(rule, name)
        if given is None or not _has_field(rule.type, name):
            continue
        if name == "action":
            words = [given] if isinstance(given, str) else given
            if not words[0].startswith("$"):
                action = words[0]
                continue
            given = [word.removeprefix("$") for word in words]
        found = column(name, given)
        if name == "time":
            time_kind = _time_kind(mapping, query.table, found)
        fields[event_field] = query.add(_field_sql(name, found))
    context = mapping.context if rule.type == "impression" else {}
    return _Compiled(
        rule=rule,
        where=where,
        fields=fields,
        context={name: query.add(column(name, e).as_text) for name, e in context.items()},
        action=action,
        time_kind=time_kind,
    )


def _has_field(kind: str, name: str) -> bool:
    kinds = {
        "action": ("behavior",),
        "value": ("behavior",),
        "position": ("impression",),
        "request": ("impression", "click"),
    }
    return kind in kinds.get(name, (kind,))


def _field_sql(name: str, column: Column) -> str:
    if name == "time":
        return column.as_time
    if name == "position":
        return f"CAST({column.sql} AS BIGINT)"
    if name == "value":
        return f"CAST({column.sql} AS DOUBLE)"
    return column.as_text


def _time_kind(mapping: Mapping, table: Table, column: Column) -> str:
    if column.time_kind == "number" and mapping.time_unit is None:
        raise MistakeError(
            f"the times of {table.path.name} are numbers: say their unit, time_unit = "
            '"s", "ms", "us" or "ns"'
        )
    if column.time_kind == "text" and mapping.time_unit:
        raise MistakeError(
            f"the times of {table.path.name} are texts, but time_unit is "
            f"{mapping.time_unit!r}: leave it out, or make them numbers"
        )
    return column.time_kind


def _item_query(items: Items, table: Table, mapping: Mapping) -> tuple[str, str]:
    """Return what kind of time it has ("": none), and the SQL."""
    time_kind, at = "", "NULL"
    if items.time is not None:
        column = table.resolve("items.time", items.time, is_number=True)
        time_kind, at = _time_kind(mapping, table, column), column.as_time
    columns = [table.resolve("items.item", items.item).as_text, at]
    named = "NULL"
    if items.named_values is not None:
        column = table.resolve("items.named_values", items.named_values)
        named = f"CAST(to_json({column.sql}) AS VARCHAR)"
    columns.append(named)
    for name, given in items.attributes.items():
        columns.append(table.resolve(f"items.attributes.{name}", given).sql)
    named_columns = ", ".join(f"{sql} AS c{n}" for n, sql in enumerate(columns))
    where = "true"
    if items.where is not None:
        where = table.resolve("items.where", items.where).sql
    inner = f"SELECT __row, {named_columns} FROM {table.view} WHERE {where}"
    if items.files:
        return time_kind, inner
    names = ", ".join(quoted(f"c{n}") for n in range(len(columns)))
    return time_kind, f"SELECT min(__row), {names} FROM ({inner}) GROUP BY {names}"


def _rejected_lines(database: Any, tables: Sequence[Table], report: ImportReport) -> None:
    """Count the lines of CSV that could not be read at all."""
    with explained(tables[0].path):
        names = {n for (n,) in database.execute("SHOW TABLES").fetchall()}
        if "reject_errors" not in names:
            return
        query = "SELECT DISTINCT line, error_message FROM reject_errors ORDER BY line"
        for line, message in database.execute(query).fetchall():
            report.rows += 1
            report.drop("broken_row", f"line {line}", str(message).splitlines()[0])


def _place(table: Table, row: int) -> str:
    number = row - 1 + table.first_line
    return f"{table.path.name} line {number}"


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatch(path.name, each) for each in patterns)


def _why_none(report: ImportReport) -> str:
    found: Iterator[str] = (f"; {note}" for note in report.notes)
    return "".join(found) or ": no condition of the mapping holds for any"
