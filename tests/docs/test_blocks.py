"""Every block of every page has a language, can be parsed, and is run by some test.

Python is run by ``tests/end_to_end/test_documents.py`` and what it names. A command of ours
is read as the command line reads it, and typed by a test, or a line here says why not.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Callable

import pytest
import yaml

from benchmarks.__main__ import modules
from tests.docs.command_line import complaint, name_of
from tests.docs.pages import Block, blocks, commands, pages, prose, words
from tests.structure.source_tree import all_files

LANGUAGES = {"", "console", "json", "nginx", "python", "toml", "yaml", "sql"}
READERS: dict[str, Callable[[str], object]] = {
    "json": lambda text: [json.loads(line) for line in text.splitlines()],
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
# Programs of others: their arguments are not checked.
OF_OTHERS = {
    ".",
    *(
        "apt",
        "cd",
        "cp",
        "curl",
        "docker",
        "flock",
        "git",
        "kubectl",
        "mkdir",
        "mv",
        "node",
    ),
    "npm",
    "openssl",
    "pip",
    "rm",
    "pg_dump",
    "pg_restore",
    "psql",
    "redis-cli",
    "rsync",
    "systemctl",
    "tar",
    "kafka-acls.sh",
    "kafka-configs.sh",
    "kafka-topics.sh",
    "torchrun",
    "valkey-cli",
}
# Commands that no test runs, and how they were run instead.
TYPED_BY_HAND = {
    "monitor open": "tests/end_to_end/test_page.py has it started by the demo",
    "model vectors": "tests/end_to_end/test_documents.py types the page's own line",
}
COMMANDS = [(str(block), command) for block, command in commands()]
OURS = [(place, each) for place, each in COMMANDS if words(each)[:1] == ["srp4ctr"]]


def test_every_block_says_in_what_language_it_is() -> None:
    assert [str(b) for b in blocks() if b.language not in LANGUAGES] == []
    typed = [b for b in blocks("") if re.search(r"^\$ ", b.text, re.MULTILINE)]
    assert [str(b) for b in typed] == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [b for b in blocks() if b.language in READERS], ids=str)
def test_what_programs_read_can_be_read(block: Block) -> None:
    assert READERS[block.language](block.text)


def test_every_command_is_ours_or_of_a_known_program() -> None:
    known = {"srp4ctr", "make", "python", *OF_OTHERS}
    found = [(place, words(each)[0]) for place, each in COMMANDS if words(each)]
    assert len(found) > 20
    assert [each for each in found if each[1] not in known] == []


@pytest.mark.parametrize(("place", "command"), OURS)
def test_the_command_line_understands_it(place: str, command: str) -> None:
    assert not complaint(words(command.replace(" …", ""))[1:]), place


def test_commands_within_a_sentence_exist() -> None:
    spans = {
        span
        for text in pages().values()
        for span in re.findall(r"`srp4ctr ([a-z][^`]*)`", prose(text))
    }
    assert len(spans) > 20
    found = {span: complaint(shlex.split(span.replace("…", ""))) for span in spans}
    # A sentence may leave out arguments.
    may_be = ("Missing parameter", "requires an argument")
    wrong = {s for s, said in found.items() if said and not any(m in said for m in may_be)}
    assert wrong == set()


def test_what_the_command_line_does_not_understand_is_found() -> None:
    assert "No such option" in complaint(["model", "list", "--sideways"])
    assert "No such command" in complaint(["model", "invent"])
    assert "Missing" in complaint(["model", "rank"])


def test_every_command_is_typed_by_a_test() -> None:
    tests = "".join(f.text for f in all_files() if f.path.startswith("tests/"))
    named = {name_of(words(command)[1:]) for _, command in OURS}
    assert len(named) >= 15
    untyped = {
        name
        for name in named - TYPED_BY_HAND.keys()
        if ", ".join(f'"{word}"' for word in name.split()) not in tests
    }
    assert untyped == set()
    assert TYPED_BY_HAND.keys() - named == set()


def test_every_benchmark_that_a_page_names_exists() -> None:
    named = {
        name
        for block in [*blocks()]
        for name in re.findall(r"NAME=(\w+)|-m benchmarks (\w+)", block.text)
        for name in name
        if name
    }
    assert named - modules().keys() == set()
