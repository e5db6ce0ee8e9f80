"""One file per claim of the README or of docs/benchmarks.md.

Each prints a table and, last, one JSON object.
"""

import argparse
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
RESULTS = FOLDER / "results"


def say(doing: str) -> None:
    """Print on stderr what happens; stdout is for the results."""
    print(doing, file=sys.stderr, flush=True)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of options whose help begins with a benchmark's docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=formatter)
