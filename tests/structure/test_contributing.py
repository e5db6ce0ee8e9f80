"""AGENTS.md, CONTRIBUTING.md and docs/developers.md name the same commands."""

from tests.docs.pages import commands


def named(page: str) -> list[str]:
    return [command for block, command in commands() if block.page == page]


def test_agents_and_contributors_read_the_same_commands() -> None:
    assert named("AGENTS.md") == named("CONTRIBUTING.md")
    assert {"make setup", "make lint", "make check", "make test"} <= {*named("AGENTS.md")}


def test_developers_read_some_of_these_commands() -> None:
    some = named("docs/developers.md")
    assert some
    assert {*some} <= {*named("CONTRIBUTING.md")}
