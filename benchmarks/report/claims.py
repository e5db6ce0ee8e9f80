"""Reads the claims that are measured (``claims.toml``), and their numbers in results."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("claims.toml")
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run of a benchmark, and where its result is."""

    entry: str
    """In ``recorded.json``."""
    benchmark: str
    args: str = ""
    result: str = ""
    """The file in ``results/``, where that is not ``BENCHMARK.json``."""
    make: str = ""
    """The target, where it is not ``make bench``."""

    @property
    def file(self) -> str:
        """The result's file name."""
        return f"{self.result or self.benchmark}.json"

    @property
    def command(self) -> str:
        """What to type to measure it again."""
        if self.make:
            return f"make {self.make}"
        args = f' ARGS="{self.args}"' if self.args else ""
        return f"make bench NAME={self.benchmark}{args}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence, and how its number is read; ``claims.toml`` says what the fields mean."""

    run: RecordedRun
    sentence: str
    shown: str = ""
    gain: str = ""
    paired_gain: str = ""
    row: Found = field(default_factory=dict)
    base: Found = field(default_factory=dict)

    def number(self, found: Found) -> str:
        """Return the number in a result, as the page shows it."""
        row = _row(found, self.row) if self.row else found
        if self.gain:
            return _signed(row[self.gain] - _row(found, self.base)[self.gain])
        if name := self.paired_gain:
            error = row[f"{name}_minus_srp4ctr_se"]
            return f"{_signed(-row[f'{name}_minus_srp4ctr'])} ± {error:.4f}"
        shown = _SHOWN.get(self.shown)
        return shown(row) if shown else self.shown.format(**row)


def read() -> dict[str, list[Claim]]:
    """Return the claims by part of the system."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))

    def run(entry: str) -> RecordedRun:
        return RecordedRun(
            entry=entry, **{"benchmark": entry} | content["runs"].get(entry, {})
        )

    return {
        part: [Claim(**each | {"run": run(each["run"])}) for each in claims]
        for part, claims in content["claims"].items()
    }


def _row(found: Found, wanted: Found) -> Found:
    (row,) = [row for row in found["rows"] if wanted.items() <= row.items()]
    return dict(row)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _container_losses(found: Found) -> str:
    lost = "{lost:,} of {events:,} events lost".format(**found)
    return lost + _failed_steps(found)


def _containers_not_recovered(found: Found) -> str:
    if not found["restarts"]:
        return "not tried in the recorded run"
    count = len(found["not_healed"])
    return f"{count:,} of {found['restarts']:,} not recovered" + _failed_steps(found)


def _failed_steps(found: Found) -> str:
    return f"; failed steps: {len(found['failed'])}" if found["failed"] else ""


_SHOWN: Mapping[str, Callable[[Found], str]] = {
    "times_naive": lambda row: f"{row['events_per_s'] / row['naive_events_per_s']:.0f}×",
    "share_at_twice": lambda row: f"{row['bounded_share_at_twice'] * 100:.0f} %",
    "container_losses": _container_losses,
    "containers_not_recovered": _containers_not_recovered,
}
