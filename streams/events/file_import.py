"""A file of events → their payloads, line by line, and what is wrong with them.

In: JSON lines, or Parquet whose columns are the events' fields and ``type``. Out: raw
payloads (a producer's mistakes stay in them) or a report that a person can act on.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import PUBLISHED_TOPICS, ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import RejectedEvent, decode, type_of
from srp4ctr.streams.events.pseudonymization import Pseudonyms

PARQUET_SUFFIXES = (".parquet", ".pq")
MAX_BAD_LINES = 1000  # a longer report has no reader
_BATCH_ROWS = 10_000
_PARQUET_MAGIC = (b"PAR1", b"PARE")  # the second of a file with an encrypted footer
_MIN_PARQUET_BYTES = 12  # both marks, and the length of the footer


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLine:
    """One event of a file as it would be published; ``number`` counts from 1."""

    number: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that would be rejected, and why."""

    number: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What is in a file of events."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    """Good events by type."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Bad lines by reason."""
    bad_lines: tuple[BadLine, ...] = ()
    """The first bad lines, at most ``MAX_BAD_LINES``."""

    @property
    def total(self) -> int:
        """Good events."""
        return sum(self.counts.values())

    @property
    def num_rejected(self) -> int:
        """Bad lines."""
        return sum(self.rejected.values())


def read_lines(path: Path) -> Iterator[FileLine]:
    """Yield the payloads in ``path``, blank lines left out; raises ``MistakeError``."""
    if not path.is_file():
        raise MistakeError(f"{path} is not a file")
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return _read_parquet(path)
    return _read_json_lines(path)


def check_file(path: Path, now_ms: int) -> FileReport:
    """Return what publishing ``path`` at ``now_ms`` would bring in, and what not."""
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    bad_lines: list[BadLine] = []
    for line in read_lines(path):
        event = decode(line.payload, now_ms)
        if not isinstance(event, RejectedEvent):
            counts[type_of(event)] += 1
            continue
        rejected[event.reason] += 1
        if len(bad_lines) < MAX_BAD_LINES:
            bad = BadLine(number=line.number, reason=event.reason, detail=event.detail)
            bad_lines.append(bad)
    return FileReport(
        path=path,
        counts=dict(counts),
        rejected={str(reason): number for reason, number in rejected.items()},
        bad_lines=tuple(bad_lines),
    )


def publish_lines(
    lines: Iterable[FileLine],
    kafka: KafkaConfig,
    pseudonyms: Pseudonyms | None,
    *,
    backfill: bool = False,
) -> EventPublisher:
    """Publish all of ``lines``, bad ones too; return once the broker has them.

    The publisher has counted them. With ``pseudonyms`` bad lines are withheld: they might
    hold a user's id.
    """
    ensure_topics(kafka, PUBLISHED_TOPICS)
    with EventPublisher(kafka, pseudonyms) as publisher:
        for line in lines:
            publisher.publish_raw(line.payload, backfill=backfill)
    return publisher


def check_parquet(path: Path) -> None:
    """Raise ``MistakeError`` for a file whose first or last bytes are not Parquet's."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(max(path.stat().st_size - 4, 0))
        end = file.read(4)
    if start not in _PARQUET_MAGIC:
        raise MistakeError(
            f"{path} cannot be read as Parquet: it does not begin as such a file"
        )
    if end != start or path.stat().st_size < _MIN_PARQUET_BYTES:
        raise MistakeError(
            f"{path} is an incomplete Parquet file, its end is missing: copy it again"
        )


def _read_json_lines(path: Path) -> Iterator[FileLine]:
    with path.open("rb") as file:
        start = file.read(4)
        if start == b"PAR1":
            raise MistakeError(f"{path} is a Parquet file: name it {path.stem}.parquet")
        if start[:2] == b"\x1f\x8b":
            raise MistakeError(f"{path} is compressed: unpack it first (gunzip)")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            payload = line.strip()
            if payload:
                yield FileLine(number=number, payload=payload)


def _read_parquet(path: Path) -> Iterator[FileLine]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_parquet(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise MistakeError(f"{path} cannot be read as Parquet: {error}") from error
    if "type" not in file.schema_arrow.names:
        columns = ", ".join(file.schema_arrow.names)
        raise MistakeError(f"{path} has no column `type`; its columns are {columns}")
    number = 0
    with file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield FileLine(number=number, payload=_payload(row))


def _payload(row: dict[str, Any]) -> bytes:
    """Return ``row`` as an event's JSON: a null is a field that the event lacks."""
    present = {name: _plain(value) for name, value in row.items() if value is not None}
    for name in ("context", "numbers", "attributes"):  # a table holds a map as text
        if isinstance(present.get(name), str):
            present[name] = msgspec.Raw(present[name].encode())
    return msgspec.json.encode(present, enc_hook=str)


def _plain(value: Any) -> Any:
    """Return Arrow's map (a list of pairs) as a dict and leave out a struct's nulls."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item is not None}
    return value
