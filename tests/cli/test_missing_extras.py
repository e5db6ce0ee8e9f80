"""A command whose extra is missing says which one to install."""

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from srp4ctr.cli.missing_extras import COMMANDS, PACKAGES, sentence
from tests.docs.command_line import name_of
from tests.structure.source_tree import PROJECT

EXTRAS: dict[str, list[str]] = {
    name: wanted
    for name, wanted in PROJECT["optional-dependencies"].items()
    if name not in ("all", "dev")
}
REQUIREMENT = re.compile(r"([\w-]+)(?:\[([\w,-]+)\])?")
INSTALLED = packages_distributions()
NOT_IMPORTED = {"pyspark"}  # half a GB: not among what is installed for tests


def brought(extra: str) -> set[str]:
    """Return the names of the packages of ``extra``, and those of their own extras."""
    found = [REQUIREMENT.match(wanted) for wanted in EXTRAS[extra]]
    return {
        name
        for match in found
        if match is not None
        for name in (match[1], *(match[2] or "").split(","))
        if name
    }


def distributions(package: str) -> set[str]:
    """Return the installed distributions that are imported as ``package``."""
    if package in NOT_IMPORTED:
        return {package}
    return {each.replace("_", "-").lower() for each in INSTALLED[package]}


@pytest.mark.parametrize("package", PACKAGES)
def test_exactly_the_extras_that_bring_a_package_are_named(package: str) -> None:
    bringing = {extra for extra in EXTRAS if brought(extra) & distributions(package)}
    assert bringing == set(PACKAGES[package])


def test_every_package_of_an_extra_is_known() -> None:
    names = {name for package in PACKAGES for name in distributions(package)}
    wanted = {
        m[1] for extra in EXTRAS.values() for w in extra if (m := REQUIREMENT.match(w))
    }
    assert wanted - names == set()


def test_every_command_and_every_extra_that_it_names_exists() -> None:
    assert [command for command in COMMANDS if name_of(command.split()) != command] == []
    named = {extra for extras in COMMANDS.values() for extra in extras}
    assert named <= {*EXTRAS, "all"}


@pytest.mark.parametrize(
    ("package", "typed", "extras"),
    [
        ("aiokafka", "stream run", "streams,features"),
        ("redis.asyncio", "stack init", "streams,features"),
        ("tritonclient", "--data-dir x model list", "features,training,serving"),
        ("torch", "features check --served", "features,training"),
        ("psycopg", "features apply", "features,postgres"),
        ("starlette.applications", "monitor open", "monitoring,serving,page"),
        ("uv", "demo --keep", "all"),
        ("pyarrow", "", "streams"),
    ],
)
def test_what_to_install_is_all_that_the_command_needs(
    package: str, typed: str, extras: str
) -> None:
    assert sentence(package, typed.split()).endswith(f": pip install 'srp4ctr[{extras}]'")


def test_a_module_of_ours_that_is_missing_is_a_bug_and_no_extra() -> None:
    assert sentence("streams.invented", ["stream", "run"]) == ""
    assert sentence(None, ["stream", "run"]) == ""


def test_a_command_ends_in_one_line() -> None:
    code = (
        "import sys\nfrom srp4ctr.cli import main as cli\nsys.modules['faust'] = None\n"
        "sys.argv = ['srp4ctr', 'stream', 'run']\ncli.main()"
    )
    names = ("SRP4CTR_FEATURES__REDIS", "SRP4CTR_KAFKA__BOOTSTRAP")
    chosen = {**os.environ, **dict.fromkeys(names, "127.0.0.1:1")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=chosen,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: srp4ctr stream needs faust: pip install 'srp4ctr[streams,features]'"
    ]
