from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.loop.train_step import loss_of
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import ClickObjective, finetune
from srp4ctr.training.objectives.pretraining import pretrain


def fresh(recipe: RefreshConfig, sizes: TableSizes) -> SRP4CTR:
    torch.manual_seed(recipe.seed)
    return SRP4CTR(recipe.model, sizes)


class Interrupted(Exception):
    """Stands for a killed process."""


def stop_at(last: int):  # type: ignore[no-untyped-def]
    def listen(step: str, done: int, total: int, note: str = "") -> None:
        if done == last:
            raise Interrupted

    return listen


def test_resumed_finetuning_equals_uninterrupted(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes, tmp_path: Path
) -> None:
    longer = replace(recipe, finetune_epochs=4, checkpoint_every_s=0.0)
    whole = fresh(longer, sizes)
    losses = finetune(whole, slates, longer, FitOptions())
    options = FitOptions(checkpoints=tmp_path, recipe="same")
    try:
        finetune(
            fresh(longer, sizes), slates, longer, replace(options, progress=stop_at(12))
        )
    except Interrupted:
        resumed = SRP4CTR(longer.model, sizes)
        assert finetune(resumed, slates, longer, options) == losses
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_resumed_pretraining_equals_uninterrupted(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes, tmp_path: Path
) -> None:
    longer = replace(recipe, pretrain_epochs=3, checkpoint_every_s=0.0)
    whole = fresh(longer, sizes)
    losses = pretrain(whole, windows, longer, FitOptions())
    options = FitOptions(checkpoints=tmp_path, recipe="same")
    try:
        pretrain(
            fresh(longer, sizes), windows, longer, replace(options, progress=stop_at(5))
        )
    except Interrupted:
        resumed = fresh(longer, sizes)
        assert pretrain(resumed, windows, longer, options) == losses
    own, theirs = whole.encoder.state_dict(), resumed.encoder.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_another_recipe_does_not_resume(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes, tmp_path: Path
) -> None:
    options = FitOptions(checkpoints=tmp_path, recipe="first")
    first = finetune(fresh(recipe, sizes), slates, recipe, options)
    other = replace(options, recipe="second")
    assert finetune(fresh(recipe, sizes), slates, recipe, other) == first


def test_the_same_seed_gives_the_same_weights(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    weights = []
    for _ in range(2):
        model = fresh(recipe, sizes)
        finetune(model, slates, recipe, FitOptions())
        weights.append(model.head.out.weight)
    assert torch.equal(*weights)


def test_progress_ends_at_its_total(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    steps: list[tuple[str, int, int]] = []

    def listen(step: str, done: int, total: int, note: str = "") -> None:
        steps.append((step, done, total))

    finetune(fresh(recipe, sizes), slates, recipe, FitOptions(progress=listen))
    assert steps[0] == ("fine-tune", 0, 10)
    assert steps[-1] == ("fine-tune", 10, 10)


def test_a_stage_that_learns_no_more_stops_and_keeps_its_best_epoch(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    by_heart = replace(
        recipe, patience=2, finetune_epochs=40, finetune_learning_rate=0.05, seed=1
    )
    validated: list[float] = []

    def log(name: str, value: float, step: int) -> None:
        if name == "fine-tune/validation":
            validated.append(value)

    model = fresh(by_heart, sizes)
    losses = finetune(model, slates, by_heart, FitOptions(log=log))
    best = int(np.argmin(validated))
    assert len(losses) == len(validated) == best + 3 < 40
    objective = ClickObjective(model, slates, by_heart).eval()
    newest = np.arange(36, 40)  # a tenth
    with torch.no_grad():
        batch = objective.batch(newest, objective.lengths[newest].max(axis=0))
        loss = loss_of(objective(batch), objective.counts(batch))
    assert float(loss) == pytest.approx(validated[best], abs=1e-5)


def test_a_stage_that_may_stop_early_resumes_too(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes, tmp_path: Path
) -> None:
    patient = replace(recipe, patience=3, finetune_epochs=6, checkpoint_every_s=0.0)
    whole, resumed = fresh(patient, sizes), fresh(patient, sizes)
    losses = finetune(whole, slates, patient, FitOptions())
    options = FitOptions(checkpoints=tmp_path, recipe="same")
    with pytest.raises(Interrupted):
        finetune(
            fresh(patient, sizes), slates, patient, replace(options, progress=stop_at(13))
        )
    assert finetune(resumed, slates, patient, options) == losses
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_half_precision_learns_nearly_the_same(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    losses = [
        finetune(fresh(recipe, sizes), slates, replace(recipe, precision=p), FitOptions())
        for p in ("32-true", "bf16-mixed")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_log_has_the_loss_and_the_rate_of_every_step(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    kept: dict[str, dict[int, float]] = {}

    def log(name: str, value: float, step: int) -> None:
        kept.setdefault(name, {})[step] = value

    losses = finetune(fresh(recipe, sizes), slates, recipe, FitOptions(log=log))
    assert list(kept["fine-tune/loss"]) == list(range(10))
    assert np.mean([kept["fine-tune/loss"][step] for step in range(5)]) == pytest.approx(
        losses[0]
    )
    rates = kept["fine-tune/learning_rate"]
    assert rates[0] == pytest.approx(recipe.finetune_learning_rate / 20)  # warming up
