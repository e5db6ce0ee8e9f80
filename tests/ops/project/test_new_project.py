"""A new project: its files agree with each other, and nothing is overwritten."""

import csv
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.errors import MistakeError
from srp4ctr.ops.project.new_project import TEMPLATES, begin
from srp4ctr.ops.project.sample import FILES, SHOWN, write_sample
from srp4ctr.settings import load
from srp4ctr.streams.events.file_import import check_file
from srp4ctr.streams.events.schema import now_ms
from tests.docs.pages import pages
from tests.structure.source_tree import ROOT

SAMPLE = ROOT / "docs" / "sample"


def test_the_sample_that_is_shipped_is_what_its_script_makes(tmp_path: Path) -> None:
    write_sample(tmp_path)
    assert {path.name for path in SAMPLE.glob("*.csv")} == set(FILES)
    for name in FILES:
        assert (SAMPLE / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert sum((SAMPLE / name).stat().st_size for name in FILES) < 1_000_000
    assert "**Generated**" in pages()["docs/sample/README.md"]


def test_its_pages_say_how_many_rows_there_are() -> None:
    text = pages()["docs/sample/README.md"]
    for name in FILES:
        with (SAMPLE / name).open(encoding="utf-8") as file:
            rows = sum(1 for _ in csv.DictReader(file))
        (line,) = [each for each in text.splitlines() if each.startswith(f"| `{name}`")]
        assert f"{rows:,}" in line


def test_a_project_begins_with_files_that_fit_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".serving").mkdir()
    said = CliRunner().invoke(app, ["settings", "init", "shop", "--sample"])
    assert said.exit_code == 0, said.output
    for name in (*TEMPLATES, *FILES):
        assert f"shop/{name}" in said.output
    assert "next: cd shop; srp4ctr events import visits.csv" in said.output
    monkeypatch.chdir(tmp_path / "shop")
    assert load().embedded.serving_dir == str(tmp_path / ".serving")
    command = ["events", "import", *FILES, "--out", "events.jsonl"]
    imported = CliRunner().invoke(app, command)
    assert imported.exit_code == 0, imported.output
    report = check_file(Path("events.jsonl"), now_ms())
    assert report.num_rejected == 0
    assert report.counts["impression"] % SHOWN == 0
    assert {"click", "behavior", "item"} <= report.counts.keys()


def test_without_an_installed_triton_it_gets_one_of_its_own(tmp_path: Path) -> None:
    begin(tmp_path / "shop", tmp_path / "nowhere", sample=False)
    text = (tmp_path / "shop" / "settings.toml").read_text()
    assert tomllib.loads(text)["embedded"]["serving_dir"] == ".serving"
    assert {path.name for path in (tmp_path / "shop").iterdir()} == set(TEMPLATES)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "import.toml").write_text("mine")
    with pytest.raises(MistakeError, match=r"import\.toml: there already, and nothing"):
        begin(tmp_path, tmp_path, sample=True)
    assert [path.name for path in tmp_path.iterdir()] == ["import.toml"]
    assert (tmp_path / "import.toml").read_text() == "mine"
