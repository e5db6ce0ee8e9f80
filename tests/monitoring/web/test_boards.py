"""The list of Grafana's dashboard files, and what they may use."""

import json
import re
from pathlib import Path

import httpx
import pytest

from srp4ctr.monitoring.dashboards import load_boards
from srp4ctr.monitoring.web.app import PageSources
from tests.monitoring.web.conftest import serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("training", "zebra", "overview", "antelope"):
        content = json.dumps({"title": name.title(), "panels": []})
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "notes.txt").write_text("no dashboard")
    return tmp_path


def test_the_overview_comes_first_and_unknown_dashboards_last(folder: Path) -> None:
    boards = load_boards(folder)
    assert list(boards) == ["overview", "training", "antelope", "zebra"]
    assert boards["overview"]["title"] == "Overview"


def test_only_files_of_the_folder_are_dashboards(folder: Path) -> None:
    (folder.parent / "secret.json").write_text('{"title": "Secret"}')
    sources = PageSources(prometheus_url="", dashboards=folder)
    with serving(sources) as address, httpx.Client(base_url=address, timeout=60.0) as page:
        assert page.get("/api/dashboards/zebra").json()["panels"] == []
        for name in ("..%2fsecret", "notes", "nothing"):
            assert page.get(f"/api/dashboards/{name}").status_code == 404, name


def test_their_variables_are_of_the_one_kind_that_the_script_knows() -> None:
    variables = 0
    for name, content in load_boards().items():
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
        assert used <= {f"${spec['name']}" for spec in specs}, name
        variables += len(specs)
    assert variables
