"""Counts crashes of serving processes by bundle, in a file that the monitor reads."""

from collections.abc import Iterable
from pathlib import Path

from srp4ctr.atomic_files import read_json, write_json

CRASHES_FILE = "deaths.json"
"""In the live model repository."""


def count_crashes(repository: Path, versions: Iterable[str]) -> None:
    """Count a crash for each of ``versions``, which may repeat a version.

    Bundles whose steps have left the repository are dropped.
    """
    counts = read_crashes(repository)
    for version in versions:
        counts[version] = counts.get(version, 0) + 1
    kept = {v: n for v, n in counts.items() if any(repository.glob(f"*_{v}"))}
    write_json(repository / CRASHES_FILE, kept)


def read_crashes(repository: Path) -> dict[str, int]:
    """Return the crashes by bundle; none without a readable file."""
    return read_json(repository / CRASHES_FILE, dict[str, int]) or {}
