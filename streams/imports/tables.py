"""Files in DuckDB, which reads them and evaluates the mapping's SQL, and can do no more.

In: paths. Out: their columns, and rows in batches. Before any file or expression is read
the database is locked: it opens the given files only, writes none, loads no extension.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.file_import import PARQUET_SUFFIXES
from srp4ctr.streams.imports.mapping import Expression, nearest
from srp4ctr.streams.imports.sql_text import explained, literal, quoted, sentence

BATCH_ROWS = 10_000
_MEMORY_LIMIT = "256MB"  # DuckDB spills what is more to a temporary folder
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_TEXTS = (".csv", ".tsv", ".txt", ".dat", ".inter", ".item", ".user")
_KNOWN = (*_TEXTS, *JSON_SUFFIXES, *PARQUET_SUFFIXES)
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = (*_WHOLE, *(f"U{each}" for each in _WHOLE), "FLOAT", "DOUBLE", "DECIMAL")


def files_in(given: Sequence[str], patterns: Sequence[str] = ()) -> list[Path]:
    """Return the files that ``given`` names: files, folders, or quoted patterns.

    Of a folder those of a known kind, or those of ``patterns``, where there are any.
    """
    found: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.is_file())
            kept = [each for each in inside if _is_wanted(each, patterns)]
        else:
            kept = [path] if path.exists() else [Path(e) for e in sorted(glob.glob(name))]
        if not kept:
            what = "folder without a file to import" if path.is_dir() else "no file"
            raise MistakeError(f"{name}: {what}")
        found += kept
    return list(dict.fromkeys(found))


def matches(path: Path, patterns: Sequence[str]) -> bool:
    """Return whether the file's name matches one of ``patterns``."""
    return any(fnmatch(path.name, pattern) for pattern in patterns)


def _is_wanted(path: Path, patterns: Sequence[str]) -> bool:
    if patterns:
        return matches(path, patterns)
    return path.name.lower().removesuffix(".gz").endswith(_KNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file as a table: each row with its place and the hash of its content."""

    database: Any = field(repr=False)
    path: Path
    view: str
    columns: dict[str, str]
    """Name → DuckDB's type. In CSV each value is text until an expression needs more."""
    first_line: int
    """The line of the first row: 2 after a header."""
    is_text: bool

    @property
    def is_unnamed(self) -> bool:
        """Whether no header names the columns."""
        return list(self.columns) == [f"column{n}" for n in range(len(self.columns))]

    def repeated(self, column: str) -> float:
        """Return the share of rows whose value of ``column`` an earlier row has, too."""
        query = f"SELECT 1.0 - count(DISTINCT {quoted(column)}) / count(*) FROM {self.view}"
        [(share,)] = self.rows(query)
        return float(share)

    def resolve(
        self, setting: str, given: Expression, *, view: str = "", is_number: bool = False
    ) -> "Column":
        """Return the SQL of ``given`` on this table; of a list the first that fits.

        ``is_number``: a column of numbers is meant as such. Raises ``MistakeError`` that
        names ``setting`` and the columns that there are.
        """
        failure = None
        for each in [given] if isinstance(given, str) else given:
            try:
                return self._column(each, view or self.view, is_number)
            except duckdb.Error as error:
                failure = failure or error
        first = given if isinstance(given, str) else given[0]
        raise MistakeError(self._explained(setting, first, str(failure)))

    def _column(self, given: str, view: str, is_number: bool) -> "Column":
        names = {column.lower(): column for column in self.columns}
        plain = names.get(given.strip().lower())
        if plain is not None and not self.columns[plain].startswith(_NUMBERS):
            is_number = False
        sql = f"\n({given}\n)" if plain is None else quoted(plain)
        if plain is not None and self.is_text and not is_number:
            sql = quoted(f"text {plain}")  # an id as it stands in the file: 007, not 7
        query = f"SELECT {sql} FROM {view}"
        if len(self.database.extract_statements(query)) == 1:
            described = self.database.execute(f"DESCRIBE {query}").fetchall()
            if len(described) == 1 and not described[0][1].startswith("TUPLE"):
                return Column(sql=sql, type=described[0][1])
        raise duckdb.ParserException(f"{given} is more than one expression")

    def _explained(self, setting: str, given: str, message: str) -> str:
        where = f"{setting} = {given!r}: {self.path.name}"
        missing = re.search(r'Referenced (?:column|table) "([^"]+)" not found', message)
        names = list(self.columns)
        if missing:
            name = missing[1]
            if "column0" in names:
                return (
                    f"{where} has no header, or none that was recognized: name its "
                    f"{len(self.columns)} columns in the mapping, [csv] columns = [...]"
                )
            return f"{where} has no column {name!r}{nearest(name, names)}"
        return f"{where}: {sentence(message)}"

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of ``query``, of which only some batches are held at once."""
        with explained(self.path):
            reader = self.database.sql(query).to_arrow_reader(BATCH_ROWS)
            for batch in reader:
                yield from zip(*(column.to_pylist() for column in batch), strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """An expression on a table, and the type of its values."""

    sql: str
    type: str

    @property
    def time_kind(self) -> str:
        """What its values are as times: number, text, local or zoned (microseconds)."""
        if self.type.startswith(_NUMBERS):
            return "number"
        if self.type.startswith("TIMESTAMP WITH"):
            return "zoned"
        return "local" if self.type.startswith(("TIMESTAMP", "DATE")) else "text"

    @property
    def as_time(self) -> str:
        """Its SQL as ``time_kind`` has it."""
        if self.time_kind == "zoned":
            return f"epoch_us({self.sql})"
        if self.time_kind == "local":
            return f"epoch_us(CAST({self.sql} AS TIMESTAMP))"
        as_decimal = self.type.startswith(("DECIMAL", "HUGEINT", "UHUGEINT"))
        return f"CAST({self.sql} AS DOUBLE)" if as_decimal else self.sql

    @property
    def as_text(self) -> str:
        """Its SQL as an id: 42, not 42.0, where a table made whole numbers broken ones."""
        if self.type in ("DOUBLE", "FLOAT"):
            whole = f"CAST(CAST({self.sql} AS HUGEINT) AS VARCHAR)"
            is_whole = f"{self.sql} = floor({self.sql}) AND abs({self.sql}) < 1e15"
            return f"CASE WHEN {is_whole} THEN {whole} ELSE CAST({self.sql} AS VARCHAR) END"
        return f"CAST({self.sql} AS VARCHAR)"


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[Any]:
    """Yield a database that can read ``paths`` and nothing else."""
    for path in paths:
        check_encoding(path)
    with TemporaryDirectory(prefix="srp4ctr-import-") as folder:
        database = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "memory_limit": _MEMORY_LIMIT,
                "temp_directory": folder,
                "enable_external_file_cache": False,
            }
        )
        try:
            allowed = ", ".join(literal(str(path.resolve())) for path in paths)
            database.execute(f"SET allowed_paths = [{allowed}]")
            database.execute("SET TimeZone = 'UTC'")
            database.execute("SET enable_progress_bar = false")
            database.execute("SET enable_external_access = false")
            database.execute("SET lock_configuration = true")
            yield database
        finally:
            database.close()


def check_encoding(path: Path) -> None:
    """Raise ``MistakeError`` for what a person sees as text and DuckDB does not."""
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        raise MistakeError(f"{path} is empty")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or (
        start[1:2] == b"\0" and start[:4] != b"PAR1"
    ):
        raise MistakeError(
            f"{path} is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8 {path} > utf8.csv"
        )
