"""Links of every page lead somewhere, to a heading where they name one."""

import os
import re
from pathlib import Path

import pytest

from tests.docs.pages import pages, prose
from tests.structure.source_tree import ROOT

_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Return the names that GitHub gives to the headings of ``text``."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in headings
    }


def broken(page: Path) -> list[str]:
    """Return the targets of ``page`` that lead nowhere."""
    found = []
    for target in _LINK.findall(prose(page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        is_there = there.exists()
        if is_there and anchor and there.suffix == ".md":
            is_there = anchor in anchors(there.read_text(encoding="utf-8"))
        if not is_there:
            found.append(target)
    return found


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str) -> None:
    assert broken(ROOT / page) == []


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading: `code`\n[a](no.md) [b](#a-heading-code) [c](#none) [d](page.md#e)\n"
        "```\n[e](in-a-block.md)\n```\n[f](https://example.org)\n"
    )
    assert broken(page) == ["no.md", "#none", "page.md#e"]


def linked(page: str) -> set[str]:
    """Return the files that ``page`` leads to, by their paths from the root."""
    targets = {target.partition("#")[0] for target in _LINK.findall(pages()[page])} - {""}
    found = [(ROOT / page).parent / target for target in targets]
    return {os.path.relpath(each, ROOT) for each in found}


def test_the_readme_leads_to_every_page() -> None:
    indexed = linked("README.md") | linked("docs/decisions/README.md")
    assert [page for page in pages() if page not in {*indexed, "README.md"}] == []
