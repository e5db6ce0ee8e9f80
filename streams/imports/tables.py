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
from srp4ctr.streams.imports.mapping import CsvForm, Expression, nearest

BATCH_ROWS = 10_000
_MEMORY_LIMIT = "512MB"  # DuckDB spills what is more to a temporary folder
_JSON = (".json", ".jsonl", ".ndjson")
_KNOWN = (".csv", ".tsv", ".txt", ".inter", ".item", *_JSON, ".parquet", ".pq")
_ATOMIC = re.compile(r"^(\w+):(token|float)(_seq)?$")  # RecBole's headers
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


def _is_wanted(path: Path, patterns: Sequence[str]) -> bool:
    if patterns:
        return any(fnmatch(path.name, each) for each in patterns)
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

    def resolve(
        self, setting: str, given: Expression, *, view: str = "", is_number: bool = False
    ) -> "Column":
        """Return the SQL of ``given`` on this table; of a list the first that fits.

        ``is_number``: a column of numbers is meant as such. Raises ``MistakeError`` that names ``setting`` and the columns that there are.
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
        names = {each.lower(): each for each in self.columns}
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
        return f"{where}: {_sentence(message)}"

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
        return f"CAST({self.sql} AS DOUBLE)" if self.type == "DECIMAL" else self.sql

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


def open_table(
    database: Any, path: Path, form: CsvForm, *, number: int, skip_bad: bool
) -> Table:
    """Return ``path`` as a table; with ``skip_bad`` rows that cannot be read are left out.

    Those of CSV are in the database's table ``reject_errors`` afterwards.
    """
    name = path.name.lower()
    with explained(path):
        if name.endswith((".parquet", ".pq")) or _starts_with(path, b"PAR1"):
            return _view(database, path, f"read_parquet({_path(path)})", number)
        if name.removesuffix(".gz").endswith(_JSON):
            options = "sample_size = -1, map_inference_threshold = -1"
            options += ", maximum_object_size = 33554432"
            if skip_bad:
                options += ", format = 'newline_delimited', ignore_errors = true"
            source = f"read_json({_path(path)}, {options}{_compression(path)})"
            return _view(database, path, source, number)
        return _csv_view(database, path, form, number, skip_bad)


def _csv_view(
    database: Any, path: Path, form: CsvForm, number: int, skip_bad: bool
) -> Table:
    """Return CSV as a table: its form is detected once, then every value read as text."""
    given = f", encoding = {literal(form.encoding)}{_compression(path)}"
    if form.delimiter:
        given += f", delim = {literal(form.delimiter)}"
    detect = ", ignore_errors = true" if skip_bad else ""
    sniffed = database.execute(
        "SELECT Delimiter, HasHeader, SkipRows, Columns FROM sniff_csv("
        f"{_path(path)}, sample_size = -1{given}{detect})"
    ).fetchone()
    delimiter, has_header, skipped, columns = sniffed
    types = {each["name"]: each["type"] for each in columns}
    if form.columns:
        has_header = [each.lower() for each in types] == [c.lower() for c in form.columns]
        if len(types) != len(form.columns):
            raise MistakeError(
                f"{path}: csv.columns names {len(form.columns)}, the file has {len(types)}"
            )
        types = dict(zip(form.columns, types.values(), strict=True))
    names = ", ".join(f"{literal(each)}: 'VARCHAR'" for each in types)
    source = (
        f"read_csv({_path(path)}, auto_detect = false, delim = {literal(delimiter)}, "
        f"quote = '\"', escape = '\"', header = {bool(has_header)}, skip = {skipped}, "
        f"columns = {{{names}}}, encoding = {literal(form.encoding)}{_compression(path)}"
        f"{', store_rejects = true' if skip_bad else ''})"
    )
    return _view(database, path, source, number, types, skipped + 1 + bool(has_header))


def _view(
    database: Any,
    path: Path,
    source: str,
    number: int,
    types: dict[str, str] | None = None,
    first_line: int = 1,
) -> Table:
    """Create the view of ``source``; ``types`` are those that CSV's texts can have."""
    described = database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    found = types or {name: kind for name, kind, *_ in described}
    texts = [f"coalesce(CAST({quoted(each)} AS VARCHAR), chr(0))" for each in found]
    shown = {each: _shown(each) for each in found}
    columns = [
        f"TRY_CAST({quoted(each)} AS {kind}) AS {quoted(shown[each])}"
        for each, kind in found.items()
    ]
    if types:
        columns += [f"{quoted(e)} AS {quoted(f'text {shown[e]}')}" for e in found]
    view = f"file{number}"
    database.execute(
        f"CREATE VIEW {view} AS SELECT row_number() OVER () AS __row, "
        f"md5(concat_ws(chr(31), {', '.join(texts)})) AS __hash, {', '.join(columns)} "
        f"FROM {source}"
    )
    return Table(
        database=database,
        path=path,
        view=view,
        columns={shown[each]: kind for each, kind in found.items()},
        first_line=first_line,
        is_text=types is not None,
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise what DuckDB says of ``path`` as a sentence, with the line where it knows it."""
    try:
        yield
    except duckdb.Error as error:
        raise MistakeError(f"{path}: {_sentence(str(error))}") from error


def _sentence(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip()]
    line = re.search(r"CSV Error on Line: (\d+)", message)
    if line:
        what = "it cannot be read"
        if found := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
            what = f"it has {found[2]} columns instead of {found[1]}"
        elif "unterminated quote" in message:
            what = "a quotation mark is never closed"
        elif "not utf-8" in message:
            what = 'it is not UTF-8; in the mapping: [csv] encoding = "latin-1"'
        elif "Maximum line size" in message:
            what = "it is longer than 2 MB"
        return f"line {line[1]}: {what} (--skip-bad leaves such rows out)"
    if "Unexpected end of GZIP" in message:
        return "the compressed file ends too early: copy it again"
    if found := re.search(r"at byte (\d+) in line (\d+): (.+?)\.? *$", message, re.M):
        return f"line {found[2]}: broken JSON: {found[3]} (--skip-bad leaves such rows out)"
    return re.sub(r"^\w+(?: \w+)* Error: ", "", lines[0]) if lines else message


def quoted(name: str) -> str:
    """Return ``name`` as an identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def literal(text: str) -> str:
    """Return ``text`` as a string."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _path(path: Path) -> str:
    return literal(str(path.resolve()))


def _shown(name: str) -> str:
    found = _ATOMIC.match(name)
    return found[1] if found else name


def _compression(path: Path) -> str:
    is_gzip = _starts_with(path, b"\x1f\x8b")
    return ", compression = 'gzip'" if is_gzip else ""


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
