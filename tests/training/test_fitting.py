from dataclasses import replace
from pathlib import Path

import torch

from training.batches import Slates
from training.config import RefreshConfig
from training.finetuning import finetune
from training.fitting import FitOptions
from training.model.embeddings import TableSizes
from training.model.srp4ctr import SRP4CTR
from training.pretraining import Windows, pretrain


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
    options = FitOptions(checkpoint=tmp_path / "fine-tune.safetensors", recipe="same")
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
    options = FitOptions(checkpoint=tmp_path / "pre-train.safetensors", recipe="same")
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
    options = FitOptions(checkpoint=tmp_path / "fine-tune.safetensors", recipe="first")
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


def test_a_stage_out_of_time_ends_early(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    longer = replace(recipe, finetune_epochs=10_000)
    losses = finetune(fresh(recipe, sizes), slates, longer, FitOptions(seconds=0.5))
    assert 1 <= len(losses) < 10_000


def test_progress_ends_at_its_total(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    heard: list[tuple[str, int, int]] = []

    def listen(step: str, done: int, total: int, note: str = "") -> None:
        heard.append((step, done, total))

    finetune(fresh(recipe, sizes), slates, recipe, FitOptions(progress=listen))
    assert heard[0] == ("fine-tune", 0, 10)
    assert heard[-1] == ("fine-tune", 10, 10)
