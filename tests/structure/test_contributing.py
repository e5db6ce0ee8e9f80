"""The commands for contributors: on all pages the same, and coverage in CI."""

import os
import subprocess

import pytest

from tests.docs.pages import commands
from tests.structure.source_tree import ROOT


def named(page: str) -> list[str]:
    return [command.strip() for block, command in commands() if block.page == page]


def test_agents_and_contributors_read_the_same_commands() -> None:
    assert named("AGENTS.md") == named("CONTRIBUTING.md")
    assert {"make setup", "make lint", "make check", "make test"} <= {*named("AGENTS.md")}


def test_developers_read_some_of_these_commands() -> None:
    some = named("docs/developers.md")
    assert some
    assert {*some} <= {*named("CONTRIBUTING.md")}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [([], False), (["CI=true"], True), (["COVERAGE=1"], True), (["COVERAGE="], False)],
)
def test_coverage_is_measured_and_printed_in_ci(
    settings: list[str], expected: bool
) -> None:
    inherited = {"CI", "COVERAGE", "MAKEFLAGS", "MFLAGS"}  # of a make that runs the tests
    others = {name: text for name, text in os.environ.items() if name not in inherited}
    command = ["make", "--dry-run", "test", *settings]
    printed = subprocess.run(
        command, cwd=ROOT, env=others, capture_output=True, text=True, check=True
    ).stdout
    assert ("--cov" in printed) == expected
    assert ("coverage report" in printed) == expected
