"""Sentences of a page are short: at most 5 % of them have more than 30 words."""

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import pages, prose

MAX_WORDS = 30
MAX_SHARE = 0.05
MIN_WORDS = 4  # fewer are a heading or a cell of a table
_END = re.compile(r"(?<=[.?!])[)*_”\"]*\s+")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|vs|cf)\.(?=\s)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+", re.MULTILINE)


def texts(page: str) -> Iterator[str]:
    """Yield each paragraph, heading, list item and table cell of a page as plain text."""
    text = re.sub(r"<!--.*?-->", "", prose(page), flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "`code`", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        cells = [line for line in lines if line.lstrip().startswith("|")]
        for row in cells:
            yield from row.strip().strip("|").split("|")
        rest = [line.lstrip("#> ") for line in lines if line not in cells]
        yield from _ITEM.split("\n".join(rest))


def sentences(page: str) -> list[str]:
    """Return every sentence of a page, without headings and cells of a few words."""
    found = []
    for text in texts(page):
        plain = _ABBREVIATION.sub(r"\1", " ".join(text.split()))
        found += [each for each in _END.split(plain) if words(each) >= MIN_WORDS]
    return found


def words(sentence: str) -> int:
    """Return the number of words; a span of code is one."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def share_of_long(page: str) -> float:
    """Return which share of the sentences has more than ``MAX_WORDS`` words."""
    lengths = [words(sentence) for sentence in sentences(page)]
    return sum(length > MAX_WORDS for length in lengths) / max(len(lengths), 1)


def unreleased() -> str:
    """Return the part of the changelog that is not released yet."""
    return pages()["CHANGELOG.md"].partition("\n## [Unreleased]")[2].partition("\n## [")[0]


@pytest.mark.parametrize("name", sorted(pages().keys() - {"CHANGELOG.md"}))
def test_few_sentences_of_a_page_are_long(name: str) -> None:
    page = pages()[name]
    found = [sentence for sentence in sentences(page) if words(sentence) > MAX_WORDS]
    assert share_of_long(page) <= MAX_SHARE, "\n".join(found)


def test_an_unreleased_change_is_one_short_sentence() -> None:
    assert "\n## [Unreleased]\n" in pages()["CHANGELOG.md"]
    entries = re.findall(r"^- (.*)$", unreleased(), re.MULTILINE)
    assert [entry for entry in entries if len(sentences(entry)) != 1] == []
    assert [entry for entry in entries if words(sentences(entry)[0]) > MAX_WORDS] == []


def test_sentences_of_paragraphs_items_and_cells_are_found() -> None:
    page = (
        "# A heading\n\nOne `code with words` two\nthree. Four comes here (e.g. five).\n\n"
        "- Eight is an item:\n  nine. `Ten` is one, too.\n"
        "- [Eleven](to/a/page.md) is the last.\n\n"
        "| twelve | 13 is a whole cell. No 14. |\n|---|---|\n\n"
        "```console\n$ none of this is read\n```\n<!-- nor is this a sentence -->\n"
    )
    assert sentences(page) == [
        "One `code` two three.",
        "Four comes here (e.g five).",
        "Eight is an item: nine.",
        "`code` is one, too.",
        "Eleven is the last.",
        "13 is a whole cell.",
    ]
    assert words("Ten `code`, – and (eleven).") == 4


def test_a_page_of_long_sentences_is_found() -> None:
    assert share_of_long(f"{'word ' * 31}. The second one is short.") == 0.5
    assert share_of_long(f"{'word ' * 30}. The second one is short.") == 0
