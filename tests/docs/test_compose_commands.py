"""The commands of make and ops in pages for operators of the real stack exist."""

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.docs.command_line import complaint
from tests.docs.pages import commands, pages, prose, words
from tests.structure.source_tree import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
# A page may leave out the user or version.
MAY_LACK = ("Missing parameter", "requires an argument")
OPS = ["docker", "compose", "run", "--rm", "ops"]


def typed() -> Iterator[tuple[str, list[str]]]:
    """Yield the words of every command of make or Docker, in a block or in a sentence."""
    for block, command in commands():
        yield str(block), words(command)
    for page, text in pages().items():
        for span in re.findall(r"`((?:make|docker) [^`]+)`", prose(text)):
            yield page, words(span.replace("…", ""))


def targets_of(command: list[str]) -> list[str]:
    """Return the targets that a command of make names."""
    return [each for each in command[1:] if "=" not in each and not each.startswith("-")]


def ops_command(command: list[str]) -> list[str] | None:
    """Return the command that ``command`` runs in the service ops; None for others."""
    if command[: len(OPS)] == OPS:
        return command[len(OPS) :]
    if command[:1] == ["make"] and "ops" in targets_of(command):
        given = [each for each in command if each.startswith("ARGS=")]
        return [word for each in given for word in shlex.split(each.removeprefix("ARGS="))]
    return None


MADE = [(place, each) for place, each in typed() if each[:1] == ["make"]]
OPERATORS = [(place, command) for place, each in typed() if (command := ops_command(each))]


def test_every_target_of_make_exists() -> None:
    named = {target for _, each in MADE for target in targets_of(each)}
    assert named >= {"demo", "up", "ops", "doctor", "refresh"}
    assert named - TARGETS == set()


@pytest.mark.parametrize(("place", "command"), OPERATORS)
def test_the_command_line_understands_what_ops_is_given(
    place: str, command: list[str]
) -> None:
    said = complaint(command)
    assert not said or any(each in said for each in MAY_LACK), place


def test_both_columns_of_the_operators_table_say_the_same() -> None:
    rows = re.findall(
        r'^\| [^|]+ \| `srp4ctr ([^`]+)` \| `make ops ARGS="([^"]+)"` \|$',
        pages()["docs/operators.md"],
        re.MULTILINE,
    )
    assert len(rows) >= 10
    assert [row for row in rows if row[0] != row[1]] == []


def test_the_operators_table_names_every_command_that_changes_something() -> None:
    table = pages()["docs/operators.md"]
    needed = {
        "stream rebuild",
        "features forget",
        "features erase-forgotten",
        "events replay-rejected",
        "model promote",
        "model rollback",
        "audit list",
    }
    assert {each for each in needed if f'`make ops ARGS="{each}' not in table} == set()


def test_a_command_that_ops_does_not_have_is_found() -> None:
    command = ops_command(["make", "ops", "ARGS=stream rebuild --sideways"])
    assert command == ["stream", "rebuild", "--sideways"]
    assert "No such option" in complaint(command)
    assert ops_command([*OPS, "model", "invent"]) == ["model", "invent"]
    assert ops_command(["make", "up", "ARGS=--scale stream=3"]) is None
