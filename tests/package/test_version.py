"""The version in pyproject.toml is the same in all other files."""

import re

from typer.testing import CliRunner

from srp4ctr.cli.main import app
from tests.structure.source_tree import PROJECT, ROOT

VERSION = PROJECT["version"]


def test_the_command_says_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"srp4ctr {VERSION}\n"


def test_our_images_are_of_this_version() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    tags = re.findall(r"image: srp4ctr-[a-z]+:(\S+)", compose)
    assert len(tags) >= 3
    assert set(tags) == {VERSION}


def test_the_changelogs_newest_release_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert (
        re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)[0]
        == VERSION
    )


def test_every_locked_package_has_a_hash() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE | re.IGNORECASE)[1:]
    assert len(packages) > 100
    assert [
        package
        for package in packages
        if "==" not in package or "--hash=sha256:" not in package
    ] == []
