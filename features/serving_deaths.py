"""How many processes of each bundle have died while they served: the monitor's file."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from srp4ctr.features.whole_files import replace_text

DEATHS_FILE = "deaths.json"
"""In the live model repository."""


def count_deaths(repository: Path, versions: Iterable[str]) -> None:
    """Count one more death of each of ``versions``, which may name one twice.

    Bundles whose steps have left the repository are forgotten.
    """
    counts = read_deaths(repository)
    for version in versions:
        counts[version] = counts.get(version, 0) + 1
    kept = {v: n for v, n in counts.items() if any(repository.glob(f"*_{v}"))}
    replace_text(repository / DEATHS_FILE, msgspec.json.encode(kept).decode())


def read_deaths(repository: Path) -> dict[str, int]:
    """Return the deaths by bundle; none where there is no file, or another release's."""
    try:
        text = (repository / DEATHS_FILE).read_bytes()
        return msgspec.json.decode(text, type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        return {}
