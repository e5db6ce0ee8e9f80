"""The page on importing: its examples are run as they stand."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.streams.events.file_import import check_file
from srp4ctr.streams.events.schema import now_ms
from srp4ctr.streams.imports.mapping import Mapping, Rule, ready_formats
from tests.docs.pages import pages, words

PAGE = pages()["docs/import.md"]
EXAMPLES = re.split(r"^## ", PAGE, flags=re.MULTILINE)
FILE = re.compile(r"^`([\w.]+)`:\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def play(title: str, folder: Path) -> None:
    """Write the files of an example, then type its commands."""
    (text,) = (example for example in EXAMPLES if example.startswith(f"Example: {title}"))
    for name, content in FILE.findall(text):
        (folder / name).write_text(content)
    matches = re.findall(r"^\$ srp4ctr (.+)$", text, re.MULTILINE)
    assert [words(each)[:2] for each in matches][-1] == ["events", "check"]
    assert any(words(each)[:2] == ["events", "import"] for each in matches)
    for match in matches:
        done = CliRunner().invoke(app, words(match))
        assert done.exit_code == 0, (match, done.output, done.exception)


def test_a_log_of_clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    play("a log of clicks", tmp_path)
    text = (tmp_path / "events.jsonl").read_text()
    assert text.count('"type":"click"') == 3
    assert '"occurred_at":1772348400000' in text  # 08:00 in Berlin is 07:00 in UTC


def test_lists_and_a_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    play("lists that were shown", tmp_path)
    report = check_file(tmp_path / "shown.parquet", now_ms())
    assert report.counts == {"impression": 3, "click": 2, "item": 2}


def test_lists_inside_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    play("lists inside a line", tmp_path)
    report = check_file(tmp_path / "events.jsonl", now_ms())
    assert report.counts == {"impression": 2, "click": 1}


def test_the_page_names_every_key_and_every_ready_mapping() -> None:
    keys = {*Mapping.__struct_fields__, *Rule.__struct_fields__} - {"description"}
    known = set(re.findall(r"`\[*(\w+)\]*`", PAGE))
    assert keys - known == set()
    assert ready_formats().keys() - known == set()
