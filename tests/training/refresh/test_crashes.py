"""A refresh killed at any boundary between its steps, and run again: one whole bundle."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops import refresh_job
from srp4ctr.settings import Settings
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.export.bundle_writer import UNFINISHED
from srp4ctr.training.loop import trainer
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.pipeline import RefreshOptions, refreshed
from srp4ctr.training.refresh.reports import RefreshOutcome
from srp4ctr.triton_repo.deployment.live_repository import Serving
from srp4ctr.triton_repo.deployment.one_server import Promotion
from tests.training.conftest import RECIPE
from tests.training.logs import write_world

# The children are forked from a process that has imported torch and used nothing of it.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    ["srp4ctr.training.refresh.pipeline", "srp4ctr.features.online.store"]
)
BOUNDARIES = (
    ("examples", 1),
    ("pre-train", 2),
    ("fine-tune", 10),
    ("export", 1),
    ("promote", 1),
)
AFTER_EXPORT = BOUNDARIES[-2:]
STEPS, SERVED = "steps", "served"  # files that a run of this test writes


def run(config: RefreshConfig, world: FeatureConfig, kill_at: tuple[str, int]) -> None:
    """Refresh, and be killed at this point of the step."""
    folder = Path(config.bundles_dir)

    def listen(step: str, done: int, total: int, note: str = "") -> None:
        with (folder / STEPS).open("a") as file:
            file.write(f"{step} {done}\n")
        if (step, done) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def promote(_: Settings, made: Path, __: str) -> Promotion:
        with (folder / SERVED).open("a") as file:
            file.write(f"{made.name}\n")
        gates = (Gate(gate="golden", passed=True),)
        return Promotion(serving=Serving(serving=made.name), gates=gates)

    trainer.CHECKPOINT_EVERY_S = 0.0  # of this process
    options = RefreshOptions(for_promotion=True, progress=listen)
    with (
        patch.object(refresh_job, "check_and_promote", promote),
        refreshed(config, world, StreamConfig(sequence_length=6), options) as report,
    ):
        refresh_job.serve_if_ready(Settings(), report, listen)


def run_apart(
    config: RefreshConfig, world: FeatureConfig, kill_at: tuple[str, int] = ("", 0)
) -> int | None:
    """Run in a process of its own; return how it ended."""
    process = CHILDREN.Process(target=run, args=(config, world, kill_at))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    return write_world(tmp_path_factory.mktemp("world"))


def a_config(bundles: Path) -> RefreshConfig:
    return replace(
        RECIPE,
        bundles_dir=str(bundles),
        finetune_epochs=12,  # what passes the gates
        finetune_learning_rate=2e-2,
        held_out_share=0.3,
        max_calibration_error=0.9,
    )


@pytest.fixture(scope="module")
def uninterrupted(world: FeatureConfig, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a refresh that was not killed."""
    config = a_config(tmp_path_factory.mktemp("whole"))
    assert run_apart(config, world) == 0
    return (Path(config.bundles_dir) / "v1" / bundle.WEIGHTS_FILE).read_bytes()


@pytest.mark.parametrize(("step", "done"), BOUNDARIES)
def test_what_is_killed_and_run_again_leaves_one_whole_bundle(
    world: FeatureConfig, tmp_path: Path, uninterrupted: bytes, step: str, done: int
) -> None:
    config = a_config(tmp_path)
    assert run_apart(config, world, (step, done)) == -signal.SIGKILL
    listed = [folder.name for folder in bundle.list_bundles(tmp_path)]
    assert listed == (["v1"] if (step, done) in AFTER_EXPORT else [])
    (tmp_path / STEPS).unlink()
    assert run_apart(config, world) == 0
    assert [folder.name for folder in tmp_path.glob("v*")] == ["v1"]
    assert bundle.verify(tmp_path / "v1").version == "v1"
    assert (tmp_path / "v1" / bundle.WEIGHTS_FILE).read_bytes() == uninterrupted
    report = reports.read(tmp_path / "v1")
    assert report is not None
    assert report.outcome is RefreshOutcome.PROMOTED
    assert not (tmp_path / UNFINISHED).exists()
    assert set((tmp_path / SERVED).read_text().split()) == {"v1"}
    begun = (tmp_path / STEPS).read_text().splitlines()
    assert ("pre-train 0" in begun) == (step == "examples")  # else it went on
    assert ("fine-tune 0" in begun) == (step in ("examples", "pre-train"))
