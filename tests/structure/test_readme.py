"""The README is a page to read in five minutes, and what it names exists."""

import re

import pytest

from tests.docs.command_line import complaint
from tests.docs.pages import commands, pages, prose, words
from tests.structure.source_tree import ROOT

README = pages()["README.md"]
MAX_BYTES = 14 * 1024
MAX_WORDS = 1_000


def words_of_prose(text: str) -> list[str]:
    """Return the words that a reader sees outside of blocks; a link's target is none."""
    shown = re.sub(r"\]\([^)]*\)", "]", prose(text))
    return [word for word in shown.split() if re.search(r"\w", word)]


def test_it_is_short() -> None:
    assert len(README.encode()) <= MAX_BYTES
    assert len(words_of_prose(README)) <= MAX_WORDS


def test_the_words_of_blocks_and_addresses_do_not_count() -> None:
    text = "One [two](three/four) | – |\n```console\n$ make five\n```\nsix.\n"
    assert words_of_prose(text) == ["One", "[two]", "six."]


def test_every_link_into_the_project_leads_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_command_that_it_names_exists() -> None:
    typed = [words(each) for block, each in commands() if block.page == "README.md"]
    typed += [words(each) for each in re.findall(r"`((?:make|srp4ctr) [^`]+)`", README)]
    assert ["make", "demo"] in typed
    assert ["make", "test"] in typed
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for program, *rest in typed:
        if program == "make":
            assert {each for each in rest if "=" not in each} <= targets
        elif program != "cd":
            assert program == "srp4ctr"
            assert not complaint(rest)


@pytest.mark.parametrize(
    "stage",
    ["event", "sequence", "feature", "example", "encoder states", "score", "metric"],
)
def test_it_shows_the_way_of_an_event(stage: str) -> None:
    (line,) = re.findall(r"^> (.+)$", README, re.MULTILINE)
    assert stage in line.split(" → ")
