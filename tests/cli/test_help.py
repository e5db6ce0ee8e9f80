"""The help of every command teaches: a sentence, each option, and an example that works."""

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from tests.docs.command_line import complaint, name_of

# Telegraphic or private words; the field has terms for all of them.
BANNED = re.compile(
    r"\b(told|heard?|hears|asked|asks?|wish(es)?|whoever|whose|learnt|anew|mend(ed)?|"
    r"beside|stranger|judge|of late|so (many|long|much))\b",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(r"^Example:\s+(.+?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


def every_command(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the name and the command of each leaf, the options of groups left out."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield " ".join(above), command
    for name, each in inner.items():
        yield from every_command(each, (*above, name))


COMMANDS = dict(every_command(get_command(app)))


def examples(command: Any) -> list[str]:
    """Return the example lines of a command's help, each as one line."""
    matches = _EXAMPLE.findall(inspect.cleandoc(command.help or ""))
    return [" ".join(match.split()) for match in matches]


def options(command: Any) -> list[tuple[str, str]]:
    """Return the name and the help of each option and argument."""
    named = [param for param in command.params if param.name != "help"]
    return [(each.name, getattr(each, "help", None) or "") for each in named]


def test_all_commands_are_walked() -> None:
    assert len(COMMANDS) >= 30
    assert {"doctor", "demo", "model refresh", "monitor report"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_in_the_file_of_its_noun(name: str) -> None:
    noun = name.split()[0]
    assert COMMANDS[name].callback.__module__ == f"srp4ctr.cli.{noun}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_sentence_says_what_the_command_does(name: str) -> None:
    first = inspect.cleandoc(COMMANDS[name].help or "").split("\n\n")[0]
    assert re.match(r"[A-Z][a-z]+ .*\.$", first, re.DOTALL), first


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_can_be_typed(name: str) -> None:
    (example,) = examples(COMMANDS[name])
    program, *words = shlex.split(example)
    assert program == "srp4ctr"
    assert name_of(words) == name
    assert complaint(words) == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_is_explained(name: str) -> None:
    found = options(COMMANDS[name])
    assert [each for each in found if not re.match(r"[^\s].*\.$", each[1])] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_may_be_left_out_has_a_default_that_is_shown(name: str) -> None:
    """Flags default to off; an option without a value says what happens without it."""
    silent = [
        param.name
        for param in COMMANDS[name].params
        if param.name != "help"
        and not param.required
        and not getattr(param, "is_flag", False)
        and param.default in (None, "")
        and "Default: " not in param.help
    ]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_the_words_of_the_field(name: str) -> None:
    text = " ".join([COMMANDS[name].help, *(each for _, each in options(COMMANDS[name]))])
    assert BANNED.findall(text) == []


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_help_fits_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, [*name.split(), "--help"])
    assert done.exit_code == 0
    assert max(map(cell_len, done.stdout.splitlines())) <= 80
    for example in examples(COMMANDS[name]) if name else []:
        assert example in " ".join(done.stdout.split())


def test_a_help_without_an_example_is_found() -> None:
    class Silent:
        help = "Do it.\n\nWithout more words."

    assert examples(Silent()) == []
    assert BANNED.search("Wait so long for the worker.")
