"""Names → SQL and TOML, and what DuckDB says of a file → a sentence with a line number."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from srp4ctr.errors import MistakeError

_SKIPPING = " (--skip-bad leaves such rows out)"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise what DuckDB says of ``path`` as a sentence, with the line where it knows it."""
    try:
        yield
    except duckdb.Error as error:
        raise MistakeError(f"{path}: {sentence(str(error))}") from error


_IN_A_LINE = (
    (r"Expected Number of Columns: (\d+) Found: (\d+)", r"it has \2 columns instead of \1"),
    (
        "unterminated quote",
        'a quotation mark is never closed; where it is a plain character: [csv] quote = ""',
    ),
    ("not utf-8", 'it is not UTF-8; in the mapping: [csv] encoding = "latin-1"'),
    ("Maximum line size", "it is longer than 2 MB"),
    ("", "it cannot be read"),
)
_OF_A_FILE = (
    (r"at byte \d+ in line (\d+): (.+?)\.? *$", r"line \1: broken JSON: \2" + _SKIPPING),
    ("Unexpected end of GZIP", "the compressed file ends too early: copy it again"),
    ("explicit cast", "it has more than numbers: write TRY_CAST(COLUMN AS DOUBLE)"),
    (r"^(?:\w+ )+Error: (.*)$", r"\1"),
    ("^(.*)$", r"\1"),
)


def sentence(message: str) -> str:
    """Return what an error of DuckDB means to the owner of a file."""
    if line := re.search(r"CSV Error on Line: (\d+)", message):
        return f"line {line[1]}: {_first_match(_IN_A_LINE, message)}{_SKIPPING}"
    if early := re.search(r"in line (\d+): unexpected end of data", message):
        number = int(early[1]) - 1  # DuckDB names the line after it
        return f"line {number}: broken JSON: it ends too early{_SKIPPING}"
    return _first_match(_OF_A_FILE, message)


def _first_match(sentences: Sequence[tuple[str, str]], message: str) -> str:
    found = ((re.search(p, message, re.MULTILINE), text) for p, text in sentences)
    return next(match.expand(text) for match, text in found if match)


def quoted(name: str) -> str:
    """Return ``name`` as an identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def literal(text: str) -> str:
    """Return ``text`` as a string."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def toml(text: str) -> str:
    """Return ``text`` as a string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
