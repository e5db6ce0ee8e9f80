"""A refresh as a run of MLflow, in a store of files."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.loop.progress import MlflowRun
from srp4ctr.training.refresh.pipeline import refresh
from tests.training.conftest import RECIPE
from tests.training.logs import write_world

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def test_a_refresh_is_a_run_with_its_settings_curves_report_and_bundle(
    tmp_path: Path, store: str
) -> None:
    config = replace(
        RECIPE,
        bundles_dir=str(tmp_path / "bundles"),
        held_out_share=0.3,
        max_calibration_error=9.0,
        mlflow_uri=store,
    )
    report = refresh(config, write_world(tmp_path), StreamConfig(sequence_length=6))
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("srp4ctr")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("v1", "FINISHED")
    assert run.data.params["model.width"] == "8"
    assert run.data.params["parent"] == "none"
    assert run.data.metrics["judged/auc"] == pytest.approx(report.metrics["auc"])
    losses = client.get_metric_history(run.info.run_id, "fine-tune/loss")
    assert [loss.step for loss in losses] == list(range(len(losses)))
    assert len(losses) > 2
    kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "bundle")}
    assert kept == {f"bundle/{path.name}" for path in report.folder.iterdir()}
    assert {"bundle/report.json", "bundle/head.onnx"} <= kept


def test_a_run_that_fails_says_so(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")

    def fail() -> None:
        with MlflowRun(store) as run:
            run.begin("v3", {"seed": 1})
            run.log("loss", 0.5, 0)
            raise KeyError("anything")

    with pytest.raises(KeyError):
        fail()
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("another")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FAILED"
    assert found.data.metrics == {"loss": 0.5}


def test_a_server_that_is_away_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        caplog.at_level(logging.WARNING, "srp4ctr.training.loop.progress"),
        MlflowRun("http://127.0.0.1:9") as run,
    ):
        run.begin("v1", {"seed": 1})
        run.log("loss", 0.5, 0)
        run.keep(tmp_path)
    ours = [record for record in caplog.records if record.name.endswith("loop.progress")]
    (said,) = ours
    assert "MLflow at http://127.0.0.1:9 gets no more of this run" in said.message


def test_no_server_is_no_run() -> None:
    with MlflowRun("") as run:
        run.begin("v1", {})
        run.log("loss", 0.5, 0)
        run.keep(Path("nowhere"))
