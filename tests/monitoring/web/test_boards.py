"""The list of Grafana's dashboard files, and what they may use."""

import json
import re
from pathlib import Path

import pytest

from srp4ctr.monitoring.web import boards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("training", "zebra", "overview", "antelope"):
        content = json.dumps({"title": name.title(), "panels": []})
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "notes.txt").write_text("no dashboard")
    return tmp_path


def test_the_overview_comes_first_and_unknown_dashboards_last(folder: Path) -> None:
    names = [board.name for board in boards.boards(folder)]
    assert names == ["overview", "training", "antelope", "zebra"]
    assert boards.boards(folder)[0].title == "Overview"


def test_only_files_of_the_folder_are_dashboards(folder: Path) -> None:
    assert boards.board("zebra", folder)["panels"] == []
    (folder.parent / "secret.json").write_text("{}")
    for name in ("../secret", "notes", "nothing", ""):
        with pytest.raises(LookupError, match="no dashboard"):
            boards.board(name, folder)


def test_the_dashboards_of_the_project_are_listed() -> None:
    assert boards.boards()


def test_their_variables_are_of_the_one_kind_that_the_script_knows() -> None:
    variables = 0
    for each in boards.boards():
        content = boards.board(each.name)
        specs = content.get("templating", {}).get("list", [])
        for spec in specs:
            assert (spec["type"], spec["multi"], spec["includeAll"]) == (
                "query",
                True,
                True,
            )
            assert re.fullmatch(r"label_values\(.+, *\w+\)", spec["query"])
            assert spec["allValue"]
        text = json.dumps(content)
        used = set(re.findall(r"\$[{\w:]+|\[\[\w+", text)) - {"$__all"}
        assert used <= {f"${spec['name']}" for spec in specs}, each.name
        variables += len(specs)
    assert variables
