"""A file → a view of DuckDB in which each row has its number and a hash of its content."""

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.file_import import PARQUET_SUFFIXES, check_parquet
from srp4ctr.streams.imports.mapping import CsvForm
from srp4ctr.streams.imports.sql_text import explained, literal, quoted
from srp4ctr.streams.imports.tables import JSON_SUFFIXES, Table

# All rows are looked at: a key that comes late would be ignored.
_JSON_OPTIONS = (
    ", sample_size = -1, map_inference_threshold = -1, maximum_object_size = 33554432"
)
_GZIP = b"\x1f\x8b"
_ATOMIC = re.compile(r"^(\w+):(token|float)(_seq)?$")  # RecBole's headers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """How DuckDB reads a file; ``types`` are those that the texts of CSV can have."""

    database: Any
    path: Path
    sql: str
    types: dict[str, str] = field(default_factory=dict)
    first_line: int = 1


def open_table(
    database: Any, path: Path, form: CsvForm, *, number: int, skip_bad: bool
) -> Table:
    """Return ``path`` as a table; with ``skip_bad`` rows that cannot be read are left out.

    Those of CSV are in the database's table ``reject_errors`` afterwards.
    """
    name = path.name.lower()
    with explained(path):
        if name.endswith(PARQUET_SUFFIXES) or _starts_with(path, b"PAR1"):
            check_parquet(path)
            sql = f"read_parquet({_path(path)})"
        elif name.removesuffix(".gz").endswith(JSON_SUFFIXES):
            sql = f"read_json({_path(path)}{_JSON_OPTIONS}{_compression(path)}"
            skipping = ", format = 'newline_delimited', ignore_errors = true"
            # An array is one value: of it no part can be left out.
            by_line = skip_bad and not _is_array(path)
            sql += f"{skipping if by_line else ''})"
        else:
            return _view(_csv_source(database, path, form, skip_bad), number)
        return _view(_Source(database=database, path=path, sql=sql), number)


def has_open_quotes(database: Any, paths: Sequence[Path], form: CsvForm) -> bool:
    """Return whether a file has quotation marks that are not closed."""
    for number, path in enumerate(paths, len(paths)):
        try:
            table = open_table(database, path, form, number=number, skip_bad=False)
            list(table.rows(f"SELECT count(*) FROM {table.view}"))
        except MistakeError as error:
            if "[csv] quote" in str(error):
                return True
    return False


def _csv_source(database: Any, path: Path, form: CsvForm, skip_bad: bool) -> _Source:
    """Return how to read CSV: its form is detected once, then every value read as text."""
    given = f"skip = {form.skip}, encoding = {literal(form.encoding)}{_compression(path)}"
    detected = f"{given}, sample_size = -1, ignore_errors = true"
    if not form.quote:
        detected += ", quote = '', escape = ''"
    if form.delimiter:
        detected += f", delim = {literal(form.delimiter)}"
    names = "Delimiter, HasHeader, Columns, DateFormat, TimestampFormat"
    delimiter, has_header, columns, *dates = database.execute(
        f"SELECT {names} FROM sniff_csv({_path(path)}, {detected})"
    ).fetchone()
    types = {column["name"]: column["type"] for column in columns}
    for kind, found in zip(("DATE", "TIMESTAMP"), dates, strict=True):
        if found and not found.startswith("%Y-%m-%d"):  # a cast knows no other
            types |= {n: "VARCHAR" for n, type_ in types.items() if type_.startswith(kind)}
    if form.columns:
        if len(types) != len(form.columns):
            raise MistakeError(
                f"{path}: csv.columns names {len(form.columns)}, the file has {len(types)}"
            )
        has_header = [each.lower() for each in types] == [c.lower() for c in form.columns]
        types = dict(zip(form.columns, types.values(), strict=True))
    names = ", ".join(f"{literal(each)}: 'VARCHAR'" for each in types)
    rejects = ", store_rejects = true, rejects_limit = 0" if skip_bad else ""
    sql = (
        f"read_csv({_path(path)}, auto_detect = false, delim = {literal(delimiter)}, "
        f"quote = {literal(form.quote)}, escape = {literal(form.quote)}, "
        f"header = {bool(has_header)}, "
        f"columns = {{{names}}}, {given}{rejects})"
    )
    first_line = form.skip + 1 + bool(has_header)
    return _Source(
        database=database, path=path, sql=sql, types=types, first_line=first_line
    )


def _view(source: _Source, number: int) -> Table:
    """Create the view of ``source`` that has this number."""
    database, types = source.database, source.types
    nested: dict[str, tuple[str, str]] = {}
    if not types:
        # Only one query: DuckDB reads the whole file to find the types of JSON.
        relation = database.sql(f"SELECT * FROM {source.sql}")
        found = dict(zip(relation.columns, relation.types, strict=True))
        types = {name: str(kind) for name, kind in found.items()}
        for name, kind in found.items():
            nested |= _fields(name, quoted(name), kind)
    texts = [f"coalesce(CAST({quoted(each)} AS VARCHAR), chr(0))" for each in types]
    shown = {each: _shown(each) for each in types}
    columns = [
        f"TRY_CAST({quoted(each)} AS {kind}) AS {quoted(shown[each])}"
        for each, kind in types.items()
    ]
    if source.types:
        columns += [f"{quoted(e)} AS {quoted(f'text {shown[e]}')}" for e in types]
    named = {shown[each]: kind for each, kind in types.items()}
    leaves = {name: leaf for name, leaf in nested.items() if name not in named}
    columns += [f"{sql} AS {quoted(name)}" for name, (sql, _) in leaves.items()]
    kinds = named | {name: kind for name, (_, kind) in leaves.items()}
    view = f"file{number}"
    database.execute(
        f"CREATE VIEW {view} AS SELECT row_number() OVER () AS __row, "
        f"md5(concat_ws(chr(31), {', '.join(texts)})) AS __hash, {', '.join(columns)} "
        f"FROM {source.sql}"
    )
    return Table(
        database=database,
        path=source.path,
        view=view,
        columns={n: kind for n, kind in kinds.items() if not kind.startswith("STRUCT")},
        first_line=source.first_line,
        is_text=bool(source.types),
    )


def _fields(name: str, sql: str, kind: Any) -> dict[str, tuple[str, str]]:
    """Return the fields within a column, at any depth: ``user.id``, its SQL and type."""
    found: dict[str, tuple[str, str]] = {}
    for inner, type_ in kind.children if kind.id == "struct" else ():
        path, field_ = f"{name}.{inner}", f"{sql}.{quoted(inner)}"
        if type_.id != "struct":
            found[path] = field_, str(type_)
        found |= _fields(path, field_, type_)
    return found


def _path(path: Path) -> str:
    return literal(str(path.resolve()))


def _shown(name: str) -> str:
    match = _ATOMIC.match(name)
    return match[1] if match else name


def _compression(path: Path) -> str:
    return ", compression = 'gzip'" if _starts_with(path, _GZIP) else ""


def _is_array(path: Path) -> bool:
    opened = gzip.open if _starts_with(path, _GZIP) else open
    with opened(path, "rb") as file:
        return bytes(file.read(64)).lstrip()[:1] == b"["


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
