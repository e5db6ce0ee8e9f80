"""The recipes: their mappings and settings are used as they stand, on generated files."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr import settings
from srp4ctr.cli.main import app
from srp4ctr.ops.project.hotel_sample import HOTELS, SEARCHES, write_hotels
from srp4ctr.streams.events.schema import Behavior, Click, Impression
from tests.docs.pages import pages
from tests.streams.imports.written import events_in

PAGE = pages()["docs/recipes/hotel_search.md"]
MAPPING, SETTINGS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_hotel_recipe_imports_prices_and_the_existing_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["settings", "init", "."]).exit_code == 0
    write_hotels(tmp_path, visits=30)
    (tmp_path / "import.toml").write_text(MAPPING)
    typed = ["events", "import", SEARCHES, HOTELS, "--out", "events.jsonl"]
    done = CliRunner().invoke(app, typed)
    assert done.exit_code == 0, done.output
    events = events_in(tmp_path / "events.jsonl")
    shown = [event for event in events if isinstance(event, Impression)]
    clicks = [event for event in events if isinstance(event, Click)]
    assert any(isinstance(event, Behavior) and event.action == "view" for event in events)
    assert len(shown) == 20 * len(clicks)
    for each in shown:
        assert each.numbers is not None
        assert each.numbers.keys() == {"price", "order"}
        assert each.numbers["order"] == each.position
    lists = {(each.request_id, each.item_id) for each in shown}
    assert {(click.request_id, click.item_id) for click in clicks} <= lists


def test_the_hotel_recipe_s_settings_declare_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["settings", "init", "."]).exit_code == 0
    with (tmp_path / "settings.toml").open("a") as file:
        file.write(SETTINGS)
    found = settings.load().features
    assert [number.name for number in found.candidate_numbers] == ["price", "order"]


def test_generated_searches_are_the_same_at_every_run(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        write_hotels(folder, visits=20)
    one, two = ([(f / n).read_text() for n in (SEARCHES, HOTELS)] for f in folders)
    assert one == two
