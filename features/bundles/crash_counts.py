"""How many processes of each bundle have died while they served: the monitor's file."""

from collections.abc import Iterable
from pathlib import Path

from srp4ctr.json_files import read_json, write_json

DEATHS_FILE = "deaths.json"
"""In the live model repository."""


def count_deaths(repository: Path, versions: Iterable[str]) -> None:
    """Count one more death of each of ``versions``, which may name one twice.

    Bundles whose steps have left the repository are dropped.
    """
    counts = read_deaths(repository)
    for version in versions:
        counts[version] = counts.get(version, 0) + 1
    kept = {v: n for v, n in counts.items() if any(repository.glob(f"*_{v}"))}
    write_json(repository / DEATHS_FILE, kept)


def read_deaths(repository: Path) -> dict[str, int]:
    """Return the deaths by bundle; none where there is no file, or another release's."""
    return read_json(repository / DEATHS_FILE, dict[str, int]) or {}
