"""Decisions stay short: eight lines each, and all of them within 90 kB."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.structure.source_tree import ROOT

FOLDER = ROOT / "docs" / "decisions"
INDEX = "README.md"
MAX_LINES = 8  # without empty ones
MAX_LETTERS = 330  # of a line, about three sentences
MAX_BYTES = 90_000
_HEADING = re.compile(r"### \S.* \(20\d\d-\d\d-\d\d, accepted\)")
_LABELS = "Context|Decision|Rejected|Evidence|Costs|Limit|Would change it"
_LINE = re.compile(rf"- (?:{_LABELS}): \S")
_NEEDED = ("Context", "Decision", "Would change it")
ADVICE = f"docs/decisions/{INDEX} has the template"


def decisions_of(text: str) -> Iterator[list[str]]:
    """Yield the lines of each decision in ``text``, heading first, without empty lines."""
    _, *parts = re.split(r"^(?=###? )", text, flags=re.MULTILINE)
    for part in parts:
        yield [line for line in part.splitlines() if line.strip()]


def faults(text: str) -> Iterator[str]:
    """Yield a sentence for each fault of the decisions in ``text``, with its remedy."""
    for heading, *lines in decisions_of(text):
        if not _HEADING.fullmatch(heading):
            yield f"{heading!r}: write '### <Decision> (YYYY-MM-DD, accepted)'; {ADVICE}"
        if (count := 1 + len(lines)) > MAX_LINES:
            yield (
                f"{heading!r} has {count} lines, at most {MAX_LINES}: move figures into a "
                "result file and name it, or split the decision"
            )
        for line in lines:
            yield from (f"{heading!r}: {fault}" for fault in faults_of_line(line))
        for label in _NEEDED:
            if not any(line.startswith(f"- {label}: ") for line in lines):
                yield f"{heading!r} has no line '- {label}: …'; {ADVICE}"


def faults_of_line(line: str) -> Iterator[str]:
    """Yield a sentence for each fault of one ``line`` below a heading."""
    if not _LINE.match(line):
        yield f"{line[:40]!r} begins with no label; {ADVICE}"
    if len(line) > MAX_LETTERS:
        yield (
            f"{line[:40]!r} has {len(line)} letters, at most {MAX_LETTERS}: keep the "
            "figure that decides, and name its source"
        )


def files() -> list[Path]:
    """Return the files of decisions, without the index."""
    return sorted(path for path in FOLDER.glob("*.md") if path.name != INDEX)


@pytest.mark.parametrize("file", files(), ids=lambda file: file.name)
def test_each_decision_is_short_and_follows_the_template(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert [*decisions_of(text)]
    assert [*faults(text)] == []


def test_all_decisions_together_are_short() -> None:
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert size <= MAX_BYTES, (
        f"docs/decisions has {size:,} bytes, at most {MAX_BYTES:,}: delete decisions that "
        "no longer hold, or that the code says anyway; git keeps them"
    )


def test_the_index_names_every_file() -> None:
    index = (FOLDER / INDEX).read_text(encoding="utf-8")
    missing = [file.name for file in files() if f"]({file.name})" not in index]
    assert missing == [], f"add a row to docs/decisions/{INDEX}"


SHORT = """### Publishing is idempotent (2026-11-25, accepted)
- Context: producers retry.
- Decision: user, request and item identify an impression.
- Would change it: producers that show an item twice in a request.
"""


def test_a_decision_by_the_template_has_no_faults() -> None:
    assert [*faults(f"# Decisions\n\n{SHORT}\n{SHORT}")] == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (SHORT.replace(", accepted", ""), "write '### <Decision>"),
        (SHORT + "- Limit: none.\n" * 5, "has 9 lines, at most 8"),
        (SHORT + "A paragraph.\n", "begins with no label"),
        (SHORT + f"- Limit: {'long ' * 80}\n", "letters, at most"),
        (SHORT.replace("- Context: producers retry.\n", ""), "no line '- Context: …'"),
        (SHORT.replace("### ", "## "), "write '### <Decision>"),
    ],
)
def test_a_fault_of_a_decision_is_found(text: str, part: str) -> None:
    (fault,) = faults(text)
    assert part in fault
