"""The field's terms in names, help and messages: no private words.

Names are split into their words; of texts, all that a user meets is read: help, errors, log
lines and titles (every string but docstrings and regular code), and the pages, but for what
is generated and for decisions.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.structure.source_tree import ROOT, SourceFile, all_files, parse, product_files

# In the place of each: what a reader would search for.
BANNED_NAMES = {
    **dict.fromkeys(("tell", "tells", "told", "telling"), "report, set, flush"),
    **dict.fromkeys(("hear", "heard", "hears", "hearing"), "receive, coverage"),
    **dict.fromkeys(("ask", "asks", "asked", "asking"), "query, request"),
    **dict.fromkeys(("wish", "wishes"), "request"),
    **dict.fromkeys(("foretell", "foretold", "promise", "promised", "promises"), "predict"),
    **dict.fromkeys(("lesson", "lessons"), "dataset"),
    **dict.fromkeys(("rival", "rivals"), "champion, baseline"),
    **dict.fromkeys(("learnt", "unlearnt"), "trained"),
    "luck": "margin of error",
    **dict.fromkeys(("stranger", "strangers"), "unknown user, unauthenticated client"),
    **dict.fromkeys(("witness", "ledger", "tally"), "stats, metrics, sums"),
    **dict.fromkeys(("outlet", "outlets"), "output topics"),
    **dict.fromkeys(("deed", "deeds"), "audit entry, operation"),
    **dict.fromkeys(("honest", "honestly"), "calibrated"),
    **dict.fromkeys(("beside", "whoever"), "alongside"),
    **dict.fromkeys(("mend", "mended", "mends"), "fix"),
    **dict.fromkeys(("dies", "died", "deaths"), "crash"),
}
BANNED_PHRASES = (
    "of late",
    "so many",
    "so much",
    "beside",
    "whoever",
    "who does",
    "who may what",
    "stranger",
    "strangers",
    "wish",
    "wishes",
    "told",
    "tells",
    "hears",
    "heard",
    "asked",
    "asks",
    "lesson",
    "lessons",
    "rival",
    "rivals",
    "learnt",
    "luck",
    "promised",
    "promises",
    "honest",
    "mended",
    "anew",
    "deed",
    "deeds",
    "dear",
    "as of old",
    "died of itself",
    "twice is once",
    "foretell",
    "unfolded",
)
_PHRASE = re.compile(rf"(?<![\w`-])({'|'.join(BANNED_PHRASES)})(?![\w-])", re.IGNORECASE)
_NO_PROSE = re.compile(r"<!-- evidence: begin.*?evidence: end -->|```.*?```|`[^`]*`", re.S)
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "monitoring/runbook.md",
    "docs/*.md",
    "deploy/**/*.md",
)
GENERATED = {"benchmarks.md", "decisions.md", "panels.md"}
# Names and fields that others read: they stay as they are published.
KEPT = {"folded_flops", "unfolded_flops", "deed"}


def words(name: str) -> list[str]:
    """Split ``snake_case`` and ``CamelCase`` into lower-case words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word.lower() for word in spaced.split("_") if word]


def names_in(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Yield line and name of each module, class, function, argument and variable."""
    for part in PurePosixPath(file.path).with_suffix("").parts:
        yield 1, part
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def texts_in(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string that is no docstring."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(file.tree)
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(file.tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
        ):
            yield node.lineno, node.value


def private_names(file: SourceFile) -> list[str]:
    """Return where a name has a banned word, and what to say in its place."""
    return sorted(
        {
            f"{file.path}:{line} {name}: {BANNED_NAMES[word]}"
            for line, name in names_in(file)
            for word in words(name)
            if word in BANNED_NAMES and name not in KEPT
        }
    )


def private_texts(file: SourceFile) -> list[str]:
    """Return where a text that users meet has a banned phrase."""
    return [
        f"{file.path}:{line} {found[0]!r} in {text[:60]!r}"
        for line, text in texts_in(file)
        if text not in KEPT and (found := _PHRASE.search(text))
    ]


def test_names_are_the_fields_terms() -> None:
    assert [each for file in all_files() for each in private_names(file)] == []


def test_texts_that_users_meet_are_the_fields_terms() -> None:
    assert [each for file in product_files() for each in private_texts(file)] == []


def test_pages_are_in_the_fields_terms() -> None:
    pages = {page for pattern in PAGES for page in ROOT.glob(pattern)}
    read = [page for page in pages if page.name not in GENERATED]
    assert len(read) > len(PAGES)
    texts = {page.name: _NO_PROSE.sub("", page.read_text("utf-8")) for page in read}
    found = {name: _PHRASE.findall(text) for name, text in texts.items()}
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


@pytest.mark.parametrize(
    "text", ["def hear(): ...", "class Witness: ...", "told = 1", "def f(asked): ..."]
)
def test_a_private_name_is_found(text: str) -> None:
    assert private_names(parse("streams/a.py", text))


def test_a_private_phrase_is_found_in_a_message_and_not_in_a_docstring() -> None:
    file = parse(
        "streams/a.py", '"""So many."""\nraise ValueError(f"{1}: so many users")\n'
    )
    assert len(private_texts(file)) == 1
