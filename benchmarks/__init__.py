"""One file per claim of the README; each prints a table and, last, one JSON object."""

from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
