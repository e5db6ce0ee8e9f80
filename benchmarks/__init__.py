"""One file per claim of the README; each prints a table and, last, one JSON object."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
RESULTS = FOLDER / "results"


def say(doing: str) -> None:
    """Print on stderr what happens; stdout is for the results."""
    print(doing, file=sys.stderr, flush=True)
