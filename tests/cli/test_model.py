"""The commands about bundles: list, serving one, differences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import RefreshOutcome, RefreshReport
from tests.training.logs import write_world

GOOD = Gate(gate="auc", passed=True, value=0.75, limit=0.5, note="AUC 0.7500")
REFRESH = ("model", "refresh", "--no-promote")
BAD = Gate(gate="champion_auc", passed=False, value=0.7, limit=0.74, note="v1 has 0.75")


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two bundles: v1, which serves, and v2, which went on from it and was refused."""
    folder, repository = tmp_path / "bundles", tmp_path / "triton"
    monkeypatch.setenv("SRP4CTR_TRAINING__BUNDLES_DIR", str(folder))
    monkeypatch.setenv("SRP4CTR_TRITON__REPOSITORY", str(repository))
    monkeypatch.setenv("COLUMNS", "250")
    write(folder / "v1", RefreshOutcome.PROMOTED, (GOOD,), auc=0.75)
    write(folder / "v2", RefreshOutcome.REFUSED, (GOOD, BAD), auc=0.7, parent="v1")
    repository.mkdir()
    (repository / "serving.json").write_text('{"serving": "v1", "previous": null}')
    return folder


def write(
    folder: Path,
    outcome: RefreshOutcome,
    gates: tuple[Gate, ...],
    auc: float,
    parent: str = "",
) -> None:
    folder.mkdir(parents=True)
    for name in bundle.CONTENT_FILES:
        (folder / name).write_bytes(b"")
    card = BundleManifest(
        version=folder.name,
        created_at_ms=1_700_000_000_000,
        sizes={"L": 50},
        metrics={"auc": auc, "log_loss": 0.5, "calibration": 1.0},
        cost={"folded_flops": 62e6},
        counts={"events": 1000},
        parent=parent,
        gates=gates,
    )
    bundle.write_card(folder, card)
    bundle.write_manifest(folder)
    report = RefreshReport(
        version=folder.name,
        folder=folder,
        outcome=outcome,
        gates=gates,
        parent=parent,
        notes=("a note",),
        seconds={"fine-tune": 12.0},
    )
    reports.write(report)


@pytest.fixture
def bundles_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An event log to train on, and the folder in which bundles will be."""
    world = write_world(tmp_path)
    settings = {
        "FEATURES__LOG_DIR": world.log_dir,
        "FEATURES__REGISTRY": world.registry,
        "STREAMS__SEQUENCE_LENGTH": "6",
        "TRITON__REPOSITORY": str(tmp_path / "triton"),
        "TRAINING__BUNDLES_DIR": str(tmp_path / "bundles"),
        "TRAINING__MODEL__WIDTH": "8",
        "TRAINING__PRETRAINING": "none",
        "TRAINING__FINETUNE_EPOCHS": "1",
        "TRAINING__HELD_OUT_SHARE": "0.3",
        "TRAINING__MIN_AUC": "2",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"SRP4CTR_{name}", value)
    return tmp_path / "bundles"


def test_a_refusal_of_the_new_bundle_is_an_exit_status_of_its_own(
    bundles_to_be: Path,
) -> None:
    assert CliRunner().invoke(app, REFRESH).exit_code == 5
    report = reports.read(bundles_to_be / "v1")
    assert report is not None
    assert report.outcome is RefreshOutcome.REFUSED
    assert CliRunner().invoke(app, REFRESH).exit_code == 0  # nothing new


def test_a_refresh_into_a_pipe_prints_its_steps_while_it_runs(bundles_to_be: Path) -> None:
    command = [sys.executable, "-m", "srp4ctr.cli", *REFRESH]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as refresh:
        assert refresh.stdout is not None
        begun, ended = refresh.stdout.readline(), refresh.stdout.readline()
        refresh.kill()  # long before its end, or it would have printed nothing so far
    assert begun.startswith("examples 0/1")
    assert ended.startswith("examples 1/1")
    assert not (bundles_to_be / "v1").exists()


def typed(*command: str) -> str:
    done = CliRunner().invoke(app, ("model", *command))
    assert done.exit_code == 0, done.exception
    return done.stdout


def row_of(text: str, first: str) -> list[str]:
    [row] = [line for line in text.splitlines() if line.startswith(f"│ {first} ")]
    return row.split()


def test_a_list_says_what_serves_and_what_refused_the_rest(bundles: Path) -> None:
    shown = typed("list")
    assert {"v1", "0.7500", "62"} <= set(row_of(shown, "v1"))
    assert "scratch" in row_of(shown, "serving")
    assert {"v2", "0.7000", "champion_auc"} <= set(row_of(shown, "v2"))
    assert "v1" in row_of(shown, "refused")


def test_a_list_for_programs_has_all_of_each(bundles: Path) -> None:
    one, two = json.loads(typed("list", "--json"))
    assert (one["version"], one["role"], one["outcome"]) == ("v1", "serving", "promoted")
    assert two["gates"][1]["note"] == "v1 has 0.75"
    assert two["parent"] == "v1"


def test_one_bundle_is_shown_whole(bundles: Path) -> None:
    shown = typed("show", "v2")
    for word in ("a note", "v1 has 0.75", "failed", "fine-tune, seconds", "folded_flops"):
        assert word in shown
    assert json.loads(typed("show", "v1", "--json"))["metrics"]["auc"] == 0.75


def test_a_difference_is_that_of_the_figures(bundles: Path) -> None:
    assert "-0.05" in row_of(typed("diff", "v1", "v2"), "auc")
    pairs = json.loads(typed("diff", "v1", "v2", "--json"))
    assert pairs["auc"] == [0.75, 0.7]
    assert pairs["gate champion_auc"] == [None, "FAILED"]
    assert pairs["events"] == [1000, 1000]


def test_a_bundle_that_is_not_there_says_what_to_type(bundles: Path) -> None:
    done = CliRunner().invoke(app, ("model", "show", "v7"))
    assert str(done.exception) == "there is no bundle v7: srp4ctr model list shows them"


def test_a_bundle_of_an_older_release_has_its_card_alone(bundles: Path) -> None:
    (bundles / "v1" / reports.REPORT_FILE).unlink()
    card = json.loads((bundles / "v1" / bundle.CARD_FILE).read_text())
    for name in ("gates", "parent", "recipe", "boundary_ms"):
        del card[name]
    (bundles / "v1" / bundle.CARD_FILE).write_text(json.dumps(card))
    assert "v1" in typed("list")
    assert "scratch" in row_of(typed("show", "v1"), "starts from")
