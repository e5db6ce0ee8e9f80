"""Events → a file that ``srp4ctr events publish`` takes: JSON lines or Parquet.

The file is whole or absent. To sort by time, events go to a temporary file first, which
DuckDB sorts on disk: memory does not grow with their number.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.file_import import PARQUET_SUFFIXES
from srp4ctr.streams.imports.sql_text import literal

_BATCH_ROWS = 10_000
_TEXTS = ("type", "event_id", "request_id", "user_id", "item_id", "action")
_AS_JSON = ("context", "numbers", "attributes")  # a table has them as text
JSON_SUFFIXES = (".jsonl", ".ndjson")


_Write = Callable[[int, bytes], None]


@dataclass(slots=True)
class EventSink:
    """Takes events; after ``discarded`` is set nothing is left of them."""

    write: _Write
    """Takes an event's time and its payload."""
    discarded: bool = False


@contextmanager
def writing(path: Path | None, *, sort: bool) -> Iterator[EventSink]:
    """Yield what writes ``path``, which is there once the block has ended well."""
    if path is None:
        yield EventSink(lambda at_ms, payload: None)
        return
    if not path.name.lower().endswith((*JSON_SUFFIXES, *PARQUET_SUFFIXES)):
        raise MistakeError(f"{path}: name it FILE.jsonl or FILE.parquet")
    if not path.absolute().parent.is_dir():
        raise MistakeError(f"there is no folder {path.absolute().parent}")
    with TemporaryDirectory(prefix=".srp4ctr-import-", dir=path.absolute().parent) as name:
        folder = Path(name)
        unfinished, unsorted = folder / path.name, folder / "unsorted.parquet"
        with _unsorted(unsorted) if sort else _event_file(unfinished) as write:
            sink = EventSink(write)
            yield sink
        if sink.discarded:
            return
        if sort:
            with _event_file(unfinished) as write:
                for at_ms, payload in _by_time(unsorted, folder):
                    write(at_ms, payload)
        unfinished.replace(path)


@contextmanager
def _event_file(path: Path) -> Iterator[_Write]:
    if not path.name.lower().endswith(PARQUET_SUFFIXES):
        with path.open("wb") as file:
            yield lambda at_ms, payload: _write_line(file, payload)
        return
    import pyarrow as pa

    columns = {name: pa.string() for name in (*_TEXTS, *_AS_JSON)}
    columns |= {"position": pa.int64(), "occurred_at": pa.int64(), "value": pa.float64()}
    with _batches(path, pa.schema(columns)) as add:
        yield lambda at_ms, payload: add(_row(payload))


@contextmanager
def _unsorted(path: Path) -> Iterator[_Write]:
    import pyarrow as pa

    schema = pa.schema({"at_ms": pa.int64(), "payload": pa.string()})
    with _batches(path, schema) as add:
        yield lambda at_ms, payload: add({"at_ms": at_ms, "payload": payload.decode()})


@contextmanager
def _batches(path: Path, schema: Any) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what adds a row to the Parquet file ``path``, in groups of ``_BATCH_ROWS``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []

    def write() -> None:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        rows.clear()

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) >= _BATCH_ROWS:
            write()

    with pq.ParquetWriter(path, schema) as writer:
        yield add
        if rows:
            write()


def _by_time(path: Path, folder: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the events in ``path`` in the order of time; those of an instant by content."""
    import duckdb

    config = {
        "memory_limit": "256MB",
        "temp_directory": str(folder / "spilled"),
        "enable_external_file_cache": False,
    }
    with duckdb.connect(config=config) as database:
        query = f"SELECT at_ms, payload FROM {literal(str(path))} ORDER BY ALL"
        for batch in database.sql(query).to_arrow_reader(_BATCH_ROWS):
            at_ms, payloads = (column.to_pylist() for column in batch)
            yield from zip(at_ms, (payload.encode() for payload in payloads), strict=True)


def _write_line(file: BinaryIO, payload: bytes) -> None:
    file.write(payload)
    file.write(b"\n")


def _row(payload: bytes) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.json.decode(payload)
    for name in _AS_JSON:
        if name in row:
            row[name] = msgspec.json.encode(row[name]).decode()
    return row
