"""Small files in other people's columns, imported."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from srp4ctr.streams.events.codec import RejectedEvent, decode
from srp4ctr.streams.events.file_import import read_lines
from srp4ctr.streams.events.schema import Event, now_ms
from srp4ctr.streams.imports.guess import guess_mapping
from srp4ctr.streams.imports.importing import ImportJob, import_files
from srp4ctr.streams.imports.mapping import Mapping, as_mapping
from srp4ctr.streams.imports.report import ImportReport

RATINGS: dict[str, Any] = {
    "user": "user_id",
    "item": "item_id",
    "time": "timestamp",
    "time_unit": "s",
    "action": "rate",
    "value": "rating",
    "behavior": "true",
}
HEADER = "user_id,item_id,timestamp,rating\n"
ROWS = "".join(f"u{n},i{n},{1_600_000_000 + n},{n % 5}\n" for n in range(20))


def ratings(**changes: Any) -> Mapping:
    """Return the mapping of ``HEADER`` with some keys changed."""
    return as_mapping(RATINGS | changes, "import.toml")


def written(folder: Path, content: str | bytes, name: str = "ratings.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def imported(
    paths: Sequence[Path] | Path,
    mapping: Mapping,
    out: Path | None = None,
    *,
    skip_bad: bool = False,
) -> ImportReport:
    files = [str(each) for each in ([paths] if isinstance(paths, Path) else paths)]
    return import_files(ImportJob(files=files, mapping=mapping, out=out, skip_bad=skip_bad))


def guessed(path: Path) -> tuple[str, Mapping]:
    """Return the mapping that is guessed of ``path``, as written and as read."""
    text = guess_mapping([str(path)])
    return text, as_mapping(tomllib.loads(text), "import.toml")


def events_in(path: Path) -> list[Event]:
    """Return the events of a file; the stream accepts all of them."""
    found = []
    for line in read_lines(path):
        event = decode(line.payload, now_ms())
        assert not isinstance(event, RejectedEvent), event
        found.append(event)
    return found


def plain(path: Path) -> list[dict[str, Any]]:
    """Return the events of a file without their ids."""
    found = [msgspec.to_builtins(event) for event in events_in(path)]
    return [{k: v for k, v in each.items() if k != "event_id"} for each in found]


def dropped(report: ImportReport) -> Counter[str]:
    return Counter({why: each.rows for why, each in report.dropped.items()})
