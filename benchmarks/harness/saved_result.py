"""Saves what a benchmark printed in ``results/``, with date, hardware and commit.

    make bench NAME=folding SAVE=1

Every benchmark prints one JSON object last. Those of ``SEVERAL_RUNS`` gather the rows of
many runs in a file of their own, which one run's circumstances would not describe.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import FOLDER, RESULTS
from srp4ctr.atomic_files import replace_text

Row = Mapping[str, Any]
SEVERAL_RUNS = ("click_quality", "own_model", "pretraining", "serving")


def main() -> None:
    """Save what comes in, and let it through; the last argument is the benchmark's name.

    With ``--check`` before it, only say whether that can be saved.
    """
    *flags, name = sys.argv[1:]
    try:
        refuse_several_runs(name)
        if flags:
            return
        measured = circumstances()  # now: the run may write a picture, or last for hours
        printed = []
        for line in sys.stdin:
            print(line, end="", flush=True)
            printed.append(line)
        file = save(name, printed, RESULTS, measured)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(f"wrote {file}; make benchmarks-page shows it", file=sys.stderr)


def refuse_several_runs(name: str) -> None:
    """Raise ValueError for a benchmark that gathers several runs."""
    if name in SEVERAL_RUNS:
        raise ValueError(f"{name} gathers several runs in a file of its own: no SAVE=1")


def save(name: str, printed: list[str], results: Path, of: Mapping[str, str]) -> Path:
    """Write the last line of ``printed`` and its circumstances ``of``; else ValueError."""
    try:
        found = json.loads(printed[-1])
    except (IndexError, json.JSONDecodeError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{name} did not end with a JSON object: nothing is saved")
    file = results / f"{name}.json"
    replace_text(file, json.dumps(found | dict(of), indent=1) + "\n")
    return file


def merge_rows(rows: Sequence[Row], file: Path, key: Sequence[str]) -> None:
    """Merge ``rows`` into ``file`` in the place of those with the same ``key`` fields."""
    file.parent.mkdir(parents=True, exist_ok=True)
    merged = sorted(merged_rows(rows, file, key), key=lambda row: str(row["data"]))
    replace_text(file, json.dumps({"rows": merged}, indent=1) + "\n")


def merged_rows(rows: Sequence[Row], file: Path, key: Sequence[str]) -> list[Row]:
    """Return ``rows`` after those of ``file`` that have another ``key``."""

    def case(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in key)

    before = json.loads(file.read_text())["rows"] if file.is_file() else []
    new = {case(row) for row in rows}
    return [*(row for row in before if case(row) not in new), *rows]


def circumstances() -> dict[str, str]:
    """Return when, on what and of which commit a result is; *dirty*: and of changes."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = described.stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {memory_gb:.0f} GB",
        **({"commit": commit} if commit else {}),
    }


def cpu_name() -> str:
    """Return what the CPU calls itself, and which of the matrix extensions it has."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = dict(line.split("\t", 1) for line in lines if "\t" in line)
    name, flags = (found.get(each, ": ").split(": ")[1] for each in ("model name", "flags"))
    named = {"avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}
    kept = sorted(named.intersection(flags.split()))
    return f"{name} ({', '.join(kept)})"


if __name__ == "__main__":
    main()
