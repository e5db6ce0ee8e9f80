"""Question: what has been measured, claim by claim?

Files under ``results/`` → docs/benchmarks.md: a row per claim with its number, and a row
per run with its date, commit, hardware and command. A claim without a committed result has
no row. The claims are in ``claims.toml``. The same results give the same bytes.

    make benchmarks-page
"""

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT, parser_of
from benchmarks.quality.clicks.variants import REFERENCE
from srp4ctr.atomic_files import replace_text
from srp4ctr.training.evaluation.quality import student_quantile

PAGE = ROOT / "docs" / "benchmarks.md"
CLAIMS = Path(__file__).with_name("claims.toml")
Found = Mapping[str, Any]
BY_HAND = "recorded.json"
UNKNOWN = "not recorded"
MARK = "†"
OPENING = """\
# Benchmarks

For readers who want to check a claim. Each row is a claim and its number. The last column
names the [run](#runs) that measured it, with date, commit, hardware and command:

```console
$ make bench NAME=serving
```

Machines differ by a factor of two and more. Compare ratios and counts rather than times,
and measure on your own machine. Benchmarks on EB-NeRD read it from the folder that the
variable `SRP4CTR_DATA` names.

| term | meaning |
|---|---|
| ± | standard error of the mean over seeds, at equal seeds for a difference |
| 95 % margin | half of the 95 % interval over these seeds, by Student's t |
| AUC, gAUC | AUC of all impressions; mean AUC within a request, by the ranking score |
| HR@10 | share of users whose last item is among the first 10 of 100 |
| slate size | items of a request: a hint on EB-NeRD, where each request has a click |

[All results of the model](evidence.md) has every model and seed; so has
[own model](own_model.md). `make benchmarks-page` writes this page from the files in
[`benchmarks/results`](../benchmarks/results), and a test compares the two; please do not
edit it here. A claim without a committed result has no row."""
CLOSING = f"""\
{MARK} Recorded by hand: the benchmark wrote no result file, or one without date, hardware
and commit. They are kept in [`{BY_HAND}`](../benchmarks/results/{BY_HAND}). *In* means
that the commit recorded the number; the measured code is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run of a benchmark, and the file of its result."""

    entry: str
    """Name in ``recorded.json``."""
    benchmark: str
    args: str = ""
    result: str = ""
    """File in ``results/`` without suffix; "": that of the benchmark."""
    make: str = ""
    """Target of make; "": ``bench``."""

    @property
    def file(self) -> str:
        """Name of the result file."""
        return f"{self.result or self.benchmark}.json"

    @property
    def command(self) -> str:
        """Command that repeats the measurement."""
        if self.make:
            return f"make {self.make}"
        args = f' ARGS="{self.args}"' if self.args else ""
        return f"make bench NAME={self.benchmark}{args}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence, and how its number is read; ``claims.toml`` says what the fields mean."""

    run: RecordedRun
    sentence: str
    measure: str
    """What the number is, with data and conditions."""
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
        if self.paired_gain:
            return _paired(self.paired_gain, row, _row(found, _reference(row)))
        shown = _SHOWN.get(self.shown)
        text = shown(row) if shown else self.shown.format(**row)
        return re.sub(r"(?<=\d)%", " %", text)


def _read() -> dict[str, list[Claim]]:
    """Return the claims by part of the system."""
    content = tomllib.loads(CLAIMS.read_text(encoding="utf-8"))

    def run(entry: str) -> RecordedRun:
        return RecordedRun(
            entry=entry, **{"benchmark": entry} | content["runs"].get(entry, {})
        )

    return {
        part: [Claim(**claim | {"run": run(claim["run"])}) for claim in claims]
        for part, claims in content["claims"].items()
    }


PARTS = _read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The result of one run, and its circumstances."""

    found: Any
    of: Mapping[str, Any] = field(default_factory=dict)
    """Date, hardware and commit."""
    by_hand: bool = False

    @property
    def commit(self) -> str:
        """Measured commit, or *in* and the commit that recorded the result."""
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
    numbers: dict[str, int] = {}
    for claim, _ in measured:
        numbers.setdefault(claim.run.entry, len(numbers) + 1)
    parts = [OPENING]
    for part, members in PARTS.items():
        lines = [
            _line(claim, found, numbers[claim.run.entry])
            for claim, found in measured
            if claim in members
        ]
        if lines:
            parts.append("\n".join([f"## {part}\n\n{_TITLES}", *lines]))
    runs = {
        claim.run.entry: _run_line(claim, found, numbers[claim.run.entry])
        for claim, found in measured
    }
    if runs:
        parts.append("\n".join([f"## Runs\n\n{_RUN_TITLES}", *runs.values()]))
    return "\n\n".join([*parts, CLOSING]) + "\n"


def rows(results: Path) -> Iterator[tuple[Claim, Measurement]]:
    """Yield each claim that has a result in ``results``."""
    recorded = _recorded(results)
    for claim in chain.from_iterable(PARTS.values()):
        entry = recorded.get(claim.run.entry)
        if measured := _measurement(results / claim.run.file, entry):
            yield claim, measured


def _measurement(file: Path, recorded: Mapping[str, Any] | None) -> Measurement | None:
    """Return the result in ``file``, or the one recorded by hand; None without both."""
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


def _reference(row: Found) -> Found:
    """Return which row of SRP4CTR is compared with ``row``: of the same data and labels."""
    _, at, labels = row["model"].partition("@")
    return {"data": row["data"], "model": f"{REFERENCE}{at}{labels}"}


def _paired(name: str, row: Found, reference: Found) -> str:
    """Return how far SRP4CTR is above ``row``, with both errors."""
    error = row[f"{name}_minus_{REFERENCE}_se"]
    seeds = min(row["seeds"], reference["seeds"])
    margin = student_quantile(0.975, seeds - 1) * error
    gain = _signed(-row[f"{name}_minus_{REFERENCE}"])
    return f"{gain} ± {error:.4f} (95 % margin {margin:.4f})"


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
| claim | number | what the number is | run |
|---|---|---|---|"""
_RUN_TITLES = """\
| run | date | commit | hardware | command |
|---|---|---|---|---|"""


def _line(claim: Claim, measured: Measurement, run: int) -> str:
    cells = claim.sentence, claim.number(measured.found), claim.measure, str(run)
    return f"| {' | '.join(cells)} |"


def _run_line(claim: Claim, measured: Measurement, run: int) -> str:
    of, mark = measured.of, f" {MARK}" if measured.by_hand else ""
    cells = (
        str(run),
        f"{of.get('date', UNKNOWN)}{mark}",
        measured.commit,
        of.get("hardware", UNKNOWN),
        f"`{claim.run.command}`",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
