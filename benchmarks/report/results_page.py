"""Question: what has been measured, claim by claim?

Files under ``results/`` → docs/benchmarks.md: a row per claim with one number, and where,
when and how it was measured. A claim without a committed result has no row. The claims
are in ``claims.toml``. The same results give the same bytes.

    make benchmarks-page
"""

import hashlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT, parser_of
from srp4ctr.atomic_files import replace_text

PAGE = ROOT / "docs" / "benchmarks.md"
CLAIMS = Path(__file__).with_name("claims.toml")
Found = Mapping[str, Any]
BY_HAND = "recorded.json"
UNKNOWN = "not recorded"
MARK = "†"
OPENING = """\
# Benchmarks

Each row is a claim, the one number that supports it, and the hardware, commit, date and
command of the measurement. `make benchmarks-page` writes this page from the files in
[`benchmarks/results`](../benchmarks/results), and a test compares the two; please do not
edit it here. A claim without a committed result has no row.

Machines differ by a factor of two and more: compare ratios and counts rather than times,
and measure on your own machine what matters to you, as in `make bench NAME=serving`.
Benchmarks on EB-NeRD read it from the folder that the variable `SRP4CTR_DATA` names.
[The model](model.md#how-good-it-is) and [a click model of your own](own_model.md) have
tables of all models and seeds, [the decisions](decisions.md) what followed from the
figures."""
CLOSING = f"""\
{MARK} Recorded by hand: the benchmark wrote no result file, or one without date, hardware
and commit, and these stood only in the project's log. They are kept in
[`{BY_HAND}`](../benchmarks/results/{BY_HAND}). *In* before a commit means that the log
named only the commit that recorded the number, not the code that was measured."""


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


def _read() -> dict[str, list[Claim]]:
    """Return the claims by part of the system."""
    content = tomllib.loads(CLAIMS.read_text(encoding="utf-8"))

    def run(entry: str) -> RecordedRun:
        return RecordedRun(
            entry=entry, **{"benchmark": entry} | content["runs"].get(entry, {})
        )

    return {
        part: [Claim(**each | {"run": run(each["run"])}) for each in claims]
        for part, claims in content["claims"].items()
    }


PARTS = _read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of a benchmark: what it found, and its circumstances."""

    found: Any
    of: Mapping[str, Any] = field(default_factory=dict)
    """The circumstances."""
    by_hand: bool = False

    @property
    def commit(self) -> str:
        """The commit that was measured, or *in* the one that recorded it."""
        recorded = f"in {self.of['recorded_in']}" if "recorded_in" in self.of else UNKNOWN
        return str(self.of.get("commit") or recorded)


def main() -> None:
    """Write the page, then print one JSON object of what was written."""
    parser = parser_of(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder")
    parser.add_argument("--page", type=Path, default=PAGE, help="the file to write")
    options = parser.parse_args()
    text = page(options.results)
    replace_text(options.page, text)
    print(f"wrote {options.page}", file=sys.stderr)
    print(json.dumps({"rows": len(list(rows(options.results)))}))


def page(results: Path) -> str:
    """Return the whole page for the files in ``results``."""
    measured = list(rows(results))
    parts = [OPENING]
    for part, members in PARTS.items():
        lines = [_line(claim, found) for claim, found in measured if claim in members]
        if lines:
            parts.append("\n".join([f"## {part}\n\n{_TITLES}", *lines]))
    return "\n\n".join([*parts, CLOSING]) + "\n"


def rows(results: Path) -> Iterator[tuple[Claim, Measurement]]:
    """Yield each claim that has a result in ``results``."""
    recorded = _recorded(results)
    for claim in chain.from_iterable(PARTS.values()):
        entry = recorded.get(claim.run.entry)
        if measured := _measurement(results / claim.run.file, entry):
            yield claim, measured


def _measurement(file: Path, recorded: Mapping[str, Any] | None) -> Measurement | None:
    """Return what ``file`` says, or what was recorded by hand in its place."""
    if not file.is_file():
        if recorded is None or "figures" not in recorded:
            return None
        return Measurement(found=recorded["figures"], of=recorded, by_hand=True)
    content = file.read_bytes()
    found = json.loads(content)
    if "date" in found:
        return Measurement(found=found, of=found)
    if recorded and recorded.get("sha256") == hashlib.sha256(content).hexdigest():
        return Measurement(found=found, of=recorded, by_hand=True)
    return Measurement(found=found)


def _recorded(results: Path) -> dict[str, Any]:
    file = results / BY_HAND
    runs: dict[str, Any] = json.loads(file.read_bytes())["runs"] if file.is_file() else {}
    return runs


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
    "share_at_twice": lambda row: f"{row['bounded_share_at_twice'] * 100:.0f} %",
    "container_losses": _container_losses,
    "containers_not_recovered": _containers_not_recovered,
}


_TITLES = """\
| claim | number | hardware | commit | date | command |
|---|---|---|---|---|---|"""


def _line(claim: Claim, measured: Measurement) -> str:
    of, mark = measured.of, f" {MARK}" if measured.by_hand else ""
    cells = (
        claim.sentence,
        claim.number(measured.found),
        of.get("hardware", UNKNOWN),
        measured.commit,
        f"{of.get('date', UNKNOWN)}{mark}",
        f"`{claim.run.command}`",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
