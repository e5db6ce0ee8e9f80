import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import ROOT
from benchmarks.harness.runner import JOBS_CODE
from benchmarks.harness.runs import (
    TRAINING_CODE,
    code_digest,
    keep,
    restore,
    trained_once,
)
from benchmarks.quality import own_model
from benchmarks.quality.clicks.click_cutting import CUTTING_CODE
from benchmarks.quality.leave_last.variants import VARIANTS_CODE

CODE = {
    *TRAINING_CODE,
    *JOBS_CODE,
    *CUTTING_CODE,
    *VARIANTS_CODE,
    *own_model.CODE,
}


def a_run(folder: Path, name: str, auc: float) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"auc": auc}))
    return file


def test_seeds_of_earlier_runs_are_found_again(tmp_path: Path) -> None:
    first, second, cache = tmp_path / "a", tmp_path / "b", tmp_path / "kept.jsonl"
    names = [f"ebnerd-9b63b8fedc01/din-seed{seed}-0123456789ab.json" for seed in range(2)]
    keep([a_run(first, name, 0.7) for name in names], first, cache)
    keep([first / "ebnerd-9b63b8fedc01" / "never-run-0123456789ab.json"], first, cache)
    a_run(second, names[0], 0.9)
    restore(cache, second)
    assert json.loads((second / names[0]).read_text()) == {"auc": 0.9}  # its own stays
    assert json.loads((second / names[1]).read_text()) == {"auc": 0.7}


def test_a_run_of_newer_code_replaces_the_older_one(tmp_path: Path) -> None:
    cache = tmp_path / "kept.jsonl"
    files = [
        a_run(tmp_path, f"ebnerd-9b63b8fedc0{k}/din{kind}-0123456789a{k}.json", k / 10)
        for k in range(2)
        for kind in ("-seed0", "@10%-seed0", "-seed1")
    ]
    tuning = a_run(tmp_path, "ebnerd-9b63b8fedc01/din-seed0-0123456789a1.tuning.json", 0)
    keep([*files, tuning], tmp_path, cache)
    lines = [json.loads(line) for line in cache.read_text().splitlines()]
    assert [line["result"]["auc"] for line in lines] == [0.1, 0, 0.1, 0.1]
    assert [line["run"] for line in lines] == sorted(
        file.relative_to(tmp_path).as_posix() for file in [*files[3:], tuning]
    )


@pytest.mark.parametrize("path", sorted(CODE))
def test_code_that_a_cached_result_depends_on_exists(path: str) -> None:
    assert (ROOT / path).is_file() or any((ROOT / path).rglob("*.py"))


def test_comments_do_not_change_the_digest_of_code(tmp_path: Path) -> None:
    file = tmp_path / "training.py"

    def digest(text: str) -> str:
        file.write_text(text)
        return code_digest(str(file))

    first = digest('"""One."""\n\ndef f():\n    """Two."""\n    return 1  # three\n')
    assert digest("def f():\n    return 1\n") == first
    assert digest("def f():\n    return 2\n") != first
    assert digest('def f():\n    return "Two."\n') != digest('def f():\n    return "2"\n')


def test_an_encoder_is_trained_once_and_fits_models_of_other_heads(tmp_path: Path) -> None:
    file = tmp_path / "encoders" / "one.safetensors"

    def model(width: int) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": nn.Linear(3, 3), "head": nn.Linear(3, width)})

    def train(of: nn.ModuleDict) -> None:
        with torch.no_grad():
            of.state_dict()["encoder.weight"].fill_(7.0)

    first, second = model(1), model(2)
    trained_once(first, file, lambda: train(first))
    trained_once(second, file, lambda: 1 / 0)
    ours, theirs = first.state_dict(), second.state_dict()
    assert torch.equal(ours["encoder.weight"], theirs["encoder.weight"])
    assert not torch.equal(ours["encoder.bias"], theirs["encoder.bias"])  # as drawn
    assert {path.name for path in file.parent.iterdir()} == {file.name, "one.lock"}


@pytest.mark.timeout(30)
def test_encoders_are_trained_at_once_if_they_differ(tmp_path: Path) -> None:
    trained: list[str] = []

    def train_another() -> None:
        other = nn.Linear(1, 1)
        trained_once(other, tmp_path / "2.safetensors", lambda: trained.append("other"))
        trained.append("one")

    trained_once(nn.Linear(1, 1), tmp_path / "1.safetensors", train_another)
    assert trained == ["other", "one"]
