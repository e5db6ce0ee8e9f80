"""Files and a mapping → a file of events, and a report: what came of them, what did not.

One pass: DuckDB computes each rule's columns, rows pass one by one, and nothing is held
but a window of event ids. A file of events is whole or absent.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Values
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.mapping import Items, Mapping, Rule, Users
from srp4ctr.streams.imports.queries import (
    CatalogueQuery,
    CompiledRule,
    Query,
    catalogue_query,
    compiled,
    unnested,
)
from srp4ctr.streams.imports.readers import open_table
from srp4ctr.streams.imports.report import DUPLICATE, NO_RULE, EventFields, ImportReport
from srp4ctr.streams.imports.rows import BadRow, EventBuilder
from srp4ctr.streams.imports.sinks import EventSink, writing
from srp4ctr.streams.imports.sql_text import explained
from srp4ctr.streams.imports.tables import Table, files_in, matches, opened
from srp4ctr.streams.state.duplicates import DUPLICATE_RECORDS

_MAX_NAMED = 12  # actions in a note
_decoder = msgspec.json.Decoder(EventFields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """What to import, and how."""

    files: Sequence[str]
    mapping: Mapping
    out: Path | None = None
    """The file of events to write, JSON lines or Parquet. None: only the report."""
    skip_bad: bool = False
    is_ready: bool = False
    """The mapping is of many people's files: keys of it may match nothing in this one."""


_Pass = tuple[Query, Sequence[CompiledRule]]
Progress = Callable[[int], None]
"""Called with the number of rows so far."""


def import_files(job: ImportJob, progress: Progress = lambda _: None) -> ImportReport:
    """Write the events of ``job`` and return the report.

    With bad rows nothing is written, unless ``skip_bad``: see ``refuse_bad``. Raises
    ``MistakeError`` where a file or the mapping cannot be read.
    """
    report = ImportReport()
    mapping = job.mapping
    paths = files_in(job.files, _patterns(mapping))
    with opened(paths) as database:
        tables = [
            open_table(database, path, mapping.csv, number=n, skip_bad=job.skip_bad)
            for n, path in enumerate(paths)
        ]
        run = _Run(job=job, tables=tables, report=report, progress=progress)
        passes = run.passes()  # all are compiled before the first row is read
        # One after another they would put all clicks after all impressions, too late for
        # the labels.
        with writing(job.out, sort=mapping.sort or len(passes) > 1) as sink:
            run.everything(passes, sink)
            _rejected_lines(database, tables, report)
            sink.discarded = bool(report.num_bad and not job.skip_bad)
    if not report.counts and not report.num_bad:
        raise MistakeError(f"no event came of {report.rows:,} rows{_why_none(report)}")
    return report


@dataclass(slots=True, kw_only=True)
class _Run:
    job: ImportJob
    tables: Sequence[Table]
    report: ImportReport
    progress: Progress
    builder: EventBuilder = field(init=False)
    seen: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))
    used: dict[Path, bytearray] = field(default_factory=dict)
    """Of each file by row number: 1 for a row of which an event came, else 0."""

    def __post_init__(self) -> None:
        self.builder = EventBuilder(self.job.mapping, time.time_ns() // 1_000_000)

    def passes(self) -> list[_Pass]:
        """Return how each table is read for events: once for all rules but nested lists."""
        mapping, rules = self.job.mapping, self.job.mapping.rules()
        catalogues = [name for catalogue in mapping.catalogues for name in catalogue.files]
        passes: list[_Pass] = []
        for table in self.tables:
            if matches(table.path, catalogues):
                continue
            own = self._rules_of(table, rules)
            for each in dict.fromkeys(unnested(rule) for rule in own):
                same = [rule for rule in own if unnested(rule) == each]
                query, on_table = compiled(mapping, table, same)
                for made in on_table:
                    before = own[: own.index(made.rule)]
                    alike = [each for each in before if _named(each) == _named(made.rule)]
                    made.again = len(alike)
                passes.append((query, on_table))
        return passes

    def _rules_of(self, table: Table, rules: Sequence[Rule]) -> Sequence[Rule]:
        """Return the rules of ``table``, by its name; else by its columns, with a note.

        The next day's file has another name than the mapping's ``files``, and the same
        columns. Where no rule, or rules of several kinds of files fit, none is returned.
        """
        own = [r for r in rules if not r.files or matches(table.path, r.files)]
        if own:
            return own
        kinds = list(dict.fromkeys(tuple(rule.files) for rule in rules))
        fitting = [
            same
            for kind in kinds
            if _fits(
                self.job.mapping, table, same := [r for r in rules if r.files == [*kind]]
            )
        ]
        name, pattern = table.path.name, ", ".join(name for kind in kinds for name in kind)
        if len(fitting) == 1:
            files = ", ".join(fitting[0][0].files)
            self.report.notes.append(
                f"{name} is read although its name is not in files = [{files}]: it has the "
                "columns"
            )
            return fitting[0]
        why = "several rules fit" if fitting else "its columns are others"
        self.report.notes.append(
            f"{name} is left out: its name is not in the mapping's files = [{pattern}], "
            f"and {why}; add it there"
        )
        return []

    def everything(self, passes: Sequence[_Pass], sink: EventSink) -> None:
        """Import the events of each table, then items' and users' attributes."""
        for query, on_table in passes:
            self._events(query, on_table, sink)
        for catalogue in self.job.mapping.catalogues:
            self._updates(catalogue, sink)
        for path, used in self.used.items():
            self._drop_unused(next(t for t in self.tables if t.path == path), used)
        if not self.job.is_ready:
            self.report.notes += _unused_actions(self.job.mapping, self.builder.actions)

    def _drop_unused(self, table: Table, used: bytearray) -> None:
        """Report the rows that no rule takes, neither in this pass nor in another."""
        row = used.find(0, 1)
        while row > 0:
            self.report.drop(NO_RULE, _place(table, row), "no condition holds")
            row = used.find(0, row + 1)

    def _events(
        self, query: Query, compiled: Sequence[CompiledRule], sink: EventSink
    ) -> None:
        table = query.table
        used = self.used.setdefault(table.path, bytearray())
        for row in table.rows(query.text):
            self._count_row()
            if row[0] >= len(used):
                used.extend(bytes(row[0] + 1 - len(used)))
            for rule in compiled:
                if rule.where is not None and not row[rule.where]:
                    continue
                used[row[0]] = 1
                event_id = row[1] if row[2] is None else f"{row[1]}-{row[2]}"
                values = rule.values(row, event_id)
                built = self.builder.build(rule.rule.type, values, rule.time_kind)
                self._take(built, table, row[0], sink)

    def _updates(self, catalogue: Items | Users, sink: EventSink) -> None:
        files = catalogue.files
        tables = [t for t in self.tables if not files or matches(t.path, files)]
        if not tables:
            whose = "items" if isinstance(catalogue, Items) else "users"
            self.report.notes.append(
                f"no catalogue ({', '.join(files)}): {whose} have no attributes"
            )
        for table in tables:
            query = catalogue_query(catalogue, table, self.job.mapping)
            since_ms = self.report.first_ms or int(table.path.stat().st_mtime * 1000)
            for row in table.rows(query.text):
                if files:
                    self._count_row()
                elif row[0] < len(used := self.used.get(table.path, bytearray())):
                    used[row[0]] = 1
                try:
                    built = self._update(query, row, since_ms)
                except ValueError as error:
                    built = BadRow(reason="invalid_field", detail=str(error))
                self._take(built, table, row[0], sink)

    def _update(
        self, query: CatalogueQuery, row: tuple[Any, ...], since_ms: int
    ) -> bytes | BadRow:
        _, owner, at, named, *values = row
        if owner is None:
            return BadRow(reason="missing_field", detail=f"it has no {query.owner} id")
        attributes = dict(zip(query.attributes, values, strict=True))
        for pair in msgspec.json.decode(named) or () if named else ():
            attributes[pair["name"]] = pair["value"]
        if at is not None:
            since_ms = self.builder.clock.millis(at, query.time_kind)
        elif query.owner == "user":
            since_ms -= 1  # a request sees what was before it
        return self.builder.build_update(
            query.owner, owner, since_ms, attributes, has_time=at is not None
        )

    def _take(self, built: bytes | BadRow, table: Table, row: int, sink: EventSink) -> None:
        if isinstance(built, BadRow):
            self.report.drop(built.reason, _place(table, row), built.detail)
            return
        event = _decoder.decode(built)
        if self._is_known(hash(event.event_id)):
            self.report.drop(DUPLICATE, _place(table, row), "the same was there before")
            return
        self.report.add(event, built)
        sink.write(event.occurred_at, built)

    def _is_known(self, key: int) -> bool:
        """Return whether ``key`` was among the last events, as the stream does.

        They are ``DUPLICATE_RECORDS`` at least, and up to twice as many.
        """
        newer, older = self.seen
        if key in newer or key in older:
            return True
        newer.add(key)
        if len(newer) >= DUPLICATE_RECORDS:
            self.seen = (set(), newer)
        return False

    def _count_row(self) -> None:
        self.report.rows += 1
        if self.report.rows % 5_000 == 0:
            self.progress(self.report.rows)


def _rejected_lines(database: Any, tables: Sequence[Table], report: ImportReport) -> None:
    """Count the lines of CSV that could not be read at all."""
    with explained(tables[0].path):
        names = {n for (n,) in database.execute("SHOW TABLES").fetchall()}
        if "reject_errors" not in names:
            return
        query = (
            "SELECT file_path, line, min(error_message) FROM reject_errors "
            "JOIN reject_scans USING (scan_id, file_id) GROUP BY ALL ORDER BY ALL"
        )
        for path, line, message in database.execute(query).fetchall():
            report.rows += 1
            place = f"{Path(path).name} line {line}"
            report.drop("broken_row", place, str(message).splitlines()[0])


def _fits(mapping: Mapping, table: Table, rules: Sequence[Rule]) -> bool:
    """Return whether ``table`` has the columns of all ``rules``."""
    try:
        for rule in rules:
            compiled(mapping, table, [rule])
    except MistakeError:
        return False
    return True


def _named(rule: Rule) -> tuple[str, str]:
    """Return what the ids of the rule's events begin with."""
    return rule.type, str(rule.action)


def _unused_actions(mapping: Mapping, met: Values[str, str]) -> Iterator[str]:
    """Yield a note if keys of ``[actions]`` are none of the behaviours' actions ``met``."""
    if unused := [name for name in mapping.actions if name not in met]:
        others = ", ".join(list(met)[:_MAX_NAMED]) or "there are no behaviours"
        yield (
            f"[actions] has {', '.join(unused)}, which no behaviour of these files has "
            f"(they have: {others})"
        )


def _place(table: Table, row: int) -> str:
    number = row - 1 + table.first_line
    return f"{table.path.name} line {number}"


def _patterns(mapping: Mapping) -> Sequence[str]:
    """Return the patterns of all files that are read of a folder; none: every file."""
    rules = mapping.rules()
    if not rules or not all(rule.files for rule in rules):
        return ()
    both = (*rules, *mapping.catalogues)
    return [name for each in both for name in each.files]


def _why_none(report: ImportReport) -> str:
    if not report.rows and not report.notes:
        return ": the files have no rows"
    notes = "".join(f"; {note}" for note in report.notes)
    return notes or ": no condition of the mapping holds for any"
