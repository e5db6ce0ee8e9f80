import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from srp4ctr.features.bundles import bundle
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.loop.row_adamw import DECAYS, ROW_STEPS, TAILS
from srp4ctr.training.model import embeddings
from srp4ctr.training.refresh.pipeline import refresh
from tests.training.conftest import RECIPE, SIZES
from tests.training.fitting_process import train
from tests.training.logs import write_world

STAGES = ("pre-train", "pre-train on feedback", "fine-tune")
ROOT = Path(__file__).parents[3]
RUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


LARGE = SIZES.item_rows - 1
"""From how many items on gradients of their table are sparse: those of the tiny model."""


@pytest.fixture(scope="module", autouse=True)
def is_large() -> Iterator[None]:
    """The tiny model has a large catalogue: what trains its rows trains all else too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "LARGE_CATALOGUE", LARGE)
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Tensor]:
    """What one uninterrupted process ends with: weights, moments and the loss of steps."""
    return trained_alone(tmp_path_factory.mktemp("expected"))


def trained_alone(folder: Path) -> dict[str, Tensor]:
    """Return what one process ends with, in ``folder``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes: sums are to be of one order
    train(folder)
    torch.set_num_threads(threads)
    return ended(folder)


def test_a_large_catalogue_s_rows_learn_what_all_rows_would(
    expected: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "LARGE_CATALOGUE", SIZES.item_rows)
    dense = trained_alone(tmp_path)
    names = {name for name in expected if name not in dense}
    assert {name.split("/")[-1] for name in names} == {ROW_STEPS, TAILS, DECAYS}
    assert_near({name: expected[name] for name in dense}, dense)


def ended(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of all stages' last checkpoints."""
    return {
        f"{stage}/{name}": tensor
        for stage in STAGES
        for name, tensor in load_file(folder / f"{stage}.safetensors").items()
    }


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Weights and loss curves agree; the moments that made them need no look.

    A key's bias shifts all scores alike: its gradient is rounding alone, which Adam scales
    up to whole steps. What starts at 0 in the head has elements whose gradient is little
    more: they differ by 1.3e-5. The calibration of a model this young is 26, where
    float32's own step is 2e-6: it alone may differ in proportion.
    """
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if "optimiser/" not in name and not name.endswith("key.bias"):
            relative = 1e-5 if name.startswith("head.scores.click.calibration_") else 0.0
            near = (
                5e-5 if name == "head.scores.ranking.weight" or ".widen." in name else 1e-5
            )
            torch.testing.assert_close(
                found[name], tensor, rtol=relative, atol=near, msg=f"{name}: {{}}".format
            )


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_a_batch_in_parts_trains_as_a_whole_one(
    parts: int, expected: Mapping[str, Tensor], tmp_path: Path
) -> None:
    train(tmp_path, replace(RECIPE, accumulate=parts))  # a batch has 8 rows
    assert_near(ended(tmp_path), expected)


def test_two_processes_learn_what_one_does(
    expected: Mapping[str, Tensor], tmp_path: Path
) -> None:
    command = [*RUN, "--nproc-per-node", "2", "-m", "tests.training.fitting_process"]
    result = subprocess.run(
        [*command, str(tmp_path), "0", str(LARGE)],
        cwd=ROOT,
        env=ALONE,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert_near(ended(tmp_path), expected)


def test_a_refresh_under_torchrun_writes_one_bundle_the_same_as_alone(
    tmp_path: Path,
) -> None:
    world = write_world(tmp_path)
    config = replace(
        RECIPE,
        bundles_dir=str(tmp_path / "alone"),
        held_out_share=0.3,
        model=ModelConfig(width=8),
        max_calibration_error=9.0,
    )
    alone = refresh(config, world, StreamConfig(sequence_length=6)).folder
    settings = {
        "features__log_dir": world.log_dir,
        "features__registry": world.registry,
        "streams__sequence_length": "6",
        "training__bundles_dir": str(tmp_path / "together"),
        "training__held_out_share": "0.3",
        "training__max_calibration_error": "9",
        "training__model__width": "8",
        "embedded__data_dir": str(tmp_path / "nothing"),
        "triton__repository": str(tmp_path / "nothing"),
    }
    for name in ("pretrain_epochs", "finetune_epochs", "batch_users", "batch_requests"):
        settings[f"training__{name}"] = str(getattr(config, name))
    command = [*RUN, "--nproc-per-node", "2", "-m", "srp4ctr.cli", "model", "refresh"]
    result = subprocess.run(
        [*command, "--no-promote"],
        cwd=ROOT,
        env={**ALONE, **{f"SRP4CTR_{n.upper()}": v for n, v in settings.items()}},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    [together] = bundle.list_bundles(tmp_path / "together")
    weights = [load_file(each / bundle.WEIGHTS_FILE) for each in (alone, together)]
    assert_near(weights[1], weights[0])
    assert bundle.verify(together).counts == bundle.verify(alone).counts
    [log] = (tmp_path / "together" / "logs" / "v1").iterdir()  # the first process's
    assert log.name.startswith("events.out.tfevents")


def test_a_killed_run_resumes_to_the_same_bits(
    expected: Mapping[str, Tensor], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.training.fitting_process", str(tmp_path)]
    fatal = {stage: random.randint(1, 5) for stage in STAGES}
    for stage, step in fatal.items():
        with subprocess.Popen(
            [*command, "0.05", str(LARGE)],
            cwd=ROOT,
            env=ALONE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            reached = any(line == f"{stage} {step}\n" for line in process.stdout)
            process.kill()
        assert reached, fatal
    subprocess.run(
        [*command, "0", str(LARGE)], cwd=ROOT, env=ALONE, check=True, capture_output=True
    )
    found = ended(tmp_path)
    assert found.keys() == expected.keys()
    different = [n for n, t in expected.items() if not torch.equal(found[n], t)]
    assert different == [], fatal
