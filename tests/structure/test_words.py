"""The field's terms in names, texts and comments: no private words.

Names are split into their words. Texts that a user meets are help, errors, log lines and
titles (every string but docstrings), and the pages, except generated ones.
Docstrings, comments, names of tests and the comments in C are read too.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

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
# Words that hide who acts, or when: in docstrings, comments, names of tests and C.
BANNED_IN_CODE = (
    *BANNED_PHRASES,
    "nobody",
    "anybody",
    "everybody",
    "somebody",
    "goes on",
    "go on",
    "of then",
    "of before",
    "for good",
    "in vain",
    "who may",
    "dies",
    "died",
    "tell",
    "telling",
    "ask",
    "asking",
    "promise",
    "greatest",
    "by itself",
    "let in",
    "let go",
    "no one",
    "ever more",
)
# Comments in these are not read yet.
UNREAD = ("benchmarks/", "tests/benchmarks/")
C_SOURCES = ("features/tensors/*.[ch]", "triton_repo/native/*.[ch]")
_C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    joined = "|".join(phrases).replace(" ", r"\s+")
    return re.compile(rf"(?<![\w`-])({joined})(?![\w-])", re.IGNORECASE)


_PHRASE, _IN_CODE = _pattern(BANNED_PHRASES), _pattern(BANNED_IN_CODE)
_NO_PROSE = re.compile(r"<!-- evidence: begin.*?evidence: end -->|```.*?```|`[^`]*`", re.S)
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "AGENTS.md",
    "CHANGELOG.md",
    ".github/**/*.md",
    "monitoring/runbook.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "deploy/**/*.md",
)
GENERATED = {"benchmarks.md", "panels.md"}
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


def comments_in(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, a field's too, and each block of comments."""
    for node in ast.walk(file.tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, node.value.value
    block, last = "", 0
    for token in tokenize.generate_tokens(io.StringIO(file.text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if block and line != last + 1:
                yield last, block
                block = ""
            block, last = f"{block}\n{token.string.lstrip('# ')}", line
    if block:
        yield last, block


def comments_in_c(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment of a file in C."""
    text = path.read_text(encoding="utf-8")
    for comment in _C_COMMENT.finditer(text):
        line = text.count("\n", 0, comment.start()) + 1
        yield line, re.sub(r"\n\s*\*", "\n", comment[0])


def names_in_c(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and each word of a file in C that is no comment."""
    text = path.read_text(encoding="utf-8")
    code = _C_COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text)
    for name in re.finditer(r"\b[A-Za-z_]\w*", code):
        yield code.count("\n", 0, name.start()) + 1, name[0]


def named_tests(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Yield line and name of each test, as words."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")


def private_comments(path: str, comments: Iterable[tuple[int, str]]) -> list[str]:
    """Return the comments, or names of tests, with a word that ``BANNED_IN_CODE`` has."""
    return [
        f"{path}:{line} {match[0]!r} in {' '.join(text.split())[:60]!r}"
        for line, text in comments
        for match in _IN_CODE.finditer(text)
    ]


def private_names(path: str, names: Iterable[tuple[int, str]]) -> list[str]:
    """Return the names with a banned word, each with the term to use instead."""
    return sorted(
        {
            f"{path}:{line} {name}: {BANNED_NAMES[word]}"
            for line, name in names
            for word in words(name)
            if word in BANNED_NAMES and name not in KEPT
        }
    )


def private_texts(file: SourceFile) -> list[str]:
    """Return where a text that users meet has a banned phrase."""
    return [
        f"{file.path}:{line} {match[0]!r} in {text[:60]!r}"
        for line, text in texts_in(file)
        if text not in KEPT and (match := _PHRASE.search(text))
    ]


def test_names_are_the_fields_terms() -> None:
    found = [name for f in all_files() for name in private_names(f.path, names_in(f))]
    assert found == []


def test_texts_that_users_meet_are_the_fields_terms() -> None:
    assert [text for file in product_files() for text in private_texts(file)] == []


def test_docstrings_and_comments_are_the_fields_terms() -> None:
    files = [file for file in all_files() if not file.path.startswith(UNREAD)]
    found = [comment for f in files for comment in private_comments(f.path, comments_in(f))]
    assert found == []


def test_names_and_comments_in_c_are_the_fields_terms() -> None:
    files = [path for pattern in C_SOURCES for path in ROOT.glob(pattern)]
    assert len(files) > 10
    found = [name for f in files for name in private_names(f.name, names_in_c(f))]
    found += [
        comment for f in files for comment in private_comments(f.name, comments_in_c(f))
    ]
    assert found == []


def test_names_of_tests_are_the_fields_terms() -> None:
    found = [
        comment for f in all_files() for comment in private_comments(f.path, named_tests(f))
    ]
    assert found == []


def test_pages_are_in_the_fields_terms() -> None:
    pages = {page for pattern in PAGES for page in ROOT.glob(pattern)}
    read = [page for page in pages if page.name not in GENERATED]
    assert len(read) > len(PAGES)
    texts = {str(page): _NO_PROSE.sub("", page.read_text("utf-8")) for page in read}
    found = {name: _PHRASE.findall(text) for name, text in texts.items()}
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


@pytest.mark.parametrize(
    "text", ["def hear(): ...", "class Witness: ...", "told = 1", "def f(asked): ..."]
)
def test_a_private_name_is_found(text: str) -> None:
    file = parse("streams/a.py", text)
    assert private_names(file.path, names_in(file))


def test_a_private_phrase_is_found_in_a_message_and_not_in_a_docstring() -> None:
    file = parse(
        "streams/a.py", '"""So many."""\nraise ValueError(f"{1}: so many users")\n'
    )
    assert len(private_texts(file)) == 1


def test_a_private_word_is_found_in_docstrings_comments_and_names_of_tests() -> None:
    text = '''"""Nobody reads it, and it goes
on."""
a: int
"""Of before."""
b = 1  # whoever
# it goes
# on
def test_it_goes_on_in_vain(): ...
'''
    file = parse("streams/a.py", text)
    found = private_comments(file.path, comments_in(file))
    assert [each.split("'")[1] for each in found] == [
        "Nobody",
        "goes\\non",
        "Of before",
        "whoever",
        "goes\\non",
    ]
    assert len(private_comments(file.path, named_tests(file))) == 2


def test_a_private_word_is_found_in_c(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int a; // asks\n\n/* It goes\n * on. */\nchar *askQueue = 0;\n")
    found = private_comments("a.c", comments_in_c(source))
    assert [each.split(" ")[0] for each in found] == ["a.c:1", "a.c:3"]
    assert private_names("a.c", names_in_c(source)) == ["a.c:5 askQueue: query, request"]
