import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.evaluation.calibration import fit_platt
from srp4ctr.training.evaluation.quality import log_loss
from srp4ctr.training.loop import trainer
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives import finetuning
from srp4ctr.training.objectives.finetuning import finetune
from srp4ctr.training.objectives.pretraining import pretrain


def fresh(recipe: RefreshConfig, sizes: TableSizes) -> SRP4CTR:
    torch.manual_seed(recipe.seed)
    return SRP4CTR(recipe.model, sizes)


@pytest.fixture(autouse=True)
def checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", 0.0)


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
    longer = replace(recipe, finetune_epochs=4)
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
    longer = replace(recipe, pretrain_epochs=3)
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


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stage_computes_on_the_threads_of_the_settings(
    threads: int, slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    seen: set[int] = set()

    def listen(step: str, done: int, total: int, note: str = "") -> None:
        if done < total:
            seen.add(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    chosen = replace(recipe, threads=threads, finetune_epochs=1)
    finetune(fresh(recipe, sizes), slates, chosen, FitOptions(progress=listen))
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (seen, after) == ({threads}, 3)


def test_another_recipe_does_not_resume(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes, tmp_path: Path
) -> None:
    options = FitOptions(checkpoints=tmp_path, recipe="first")
    first = finetune(fresh(recipe, sizes), slates, recipe, options)
    other = replace(options, recipe="second")
    assert finetune(fresh(recipe, sizes), slates, recipe, other) == first


def test_a_checkpoint_of_another_model_does_not_resume(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes, tmp_path: Path
) -> None:
    options = FitOptions(checkpoints=tmp_path, recipe="of both")
    flat = replace(recipe, model=replace(recipe.model, num_layers=1))
    finetune(fresh(flat, sizes), slates, flat, options)
    losses = finetune(fresh(recipe, sizes), slates, recipe, FitOptions())
    assert finetune(fresh(recipe, sizes), slates, recipe, options) == losses


def test_the_same_seed_gives_the_same_weights(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    weights = []
    for _ in range(2):
        model = fresh(recipe, sizes)
        finetune(model, slates, recipe, FitOptions())
        weights.append(model.head.click.out.weight)
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


@pytest.fixture
def held_out(slates: Slates, monkeypatch: pytest.MonkeyPatch) -> Slates:
    """Slates whose losses are least after the second epoch, of four."""
    means = itertools.cycle([0.5, 0.3, 0.6, 0.4])
    noise = np.linspace(-0.01, 0.01, 20)  # a standard error of .001
    losses = lambda model, slates: next(means) + noise  # noqa: E731
    monkeypatch.setattr(finetuning, "request_losses", losses)
    return slates.take(slice(0, 20))


def test_what_was_better_after_an_earlier_epoch_is_trained_again_up_to_it(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes, held_out: Slates
) -> None:
    config = replace(recipe, finetune_epochs=4)
    model, alike = fresh(config, sizes), fresh(config, sizes)
    losses = finetune(model, slates, config, FitOptions(), held_out)
    # As if the setting had been right from the beginning.
    shorter = replace(config, finetune_epochs=2)
    assert finetune(alike, slates, shorter, FitOptions()) == losses
    for name, tensor in alike.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


_DRAWN = np.random.default_rng(0).uniform(-0.1, 0.1, (4, 20))
NOISE = _DRAWN - _DRAWN.mean(axis=1, keepdims=True)  # a standard error of .02


@pytest.mark.parametrize(
    ("means", "epochs"),
    [
        ([0.5, 0.3, 0.6, 0.4], 2),
        ([0.5, 0.3, 0.31, 0.6], 2),  # no better by more than chance, and so no longer
        ([0.31, 0.3, 0.6, 0.6], 1),
        ([0.5, 0.4, 0.3, 0.31], 0),  # worse at the end by chance
        ([0.5, 0.4, 0.3, 0.2], 0),
    ],
)
def test_the_fewest_epochs_as_good_as_the_best_are_trained(
    means: list[float], epochs: int
) -> None:
    losses = np.array(means)[:, None] + NOISE
    assert trainer._best_epochs(losses) == epochs
    assert trainer._best_epochs(losses[:1]) == 0


def test_clicks_that_are_learned_are_trained_for_all_epochs(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    config = replace(recipe, finetune_epochs=4)
    model, alike = fresh(config, sizes), fresh(config, sizes)
    losses = finetune(model, slates, config, FitOptions(), slates)
    assert losses == finetune(alike, slates, config, FitOptions())
    assert torch.equal(model.head.click.out.weight, alike.head.click.out.weight)


@pytest.mark.parametrize("nothing", [0, 1])
def test_without_anything_held_out_all_epochs_are_trained(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes, nothing: int
) -> None:
    held_out = slates.take(slice(0, nothing))
    losses = finetune(fresh(recipe, sizes), slates, recipe, FitOptions(), held_out)
    assert len(losses) == recipe.finetune_epochs


def test_a_request_s_loss_is_that_of_its_calibrated_impressions(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = fresh(recipe, sizes)
    finetune(model, slates, recipe, FitOptions())
    losses = finetuning.request_losses(model, slates)
    shown, logits = slates.shown, finetuning.serving_logits(model, slates).click
    calibration = fit_platt(slates.clicked[shown], logits[shown])
    wanted = log_loss(slates.clicked[shown], calibration.probabilities(logits[shown]))
    assert losses.shape == (len(slates),)
    assert losses.sum() / shown.sum() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("stopped", [("fine-tune", 18), ("fine-tune again", 3)])
def test_a_stage_that_is_trained_again_resumes_too(
    slates: Slates,
    recipe: RefreshConfig,
    sizes: TableSizes,
    held_out: Slates,
    tmp_path: Path,
    stopped: tuple[str, int],
) -> None:
    config = replace(recipe, finetune_epochs=4)
    whole, resumed = fresh(config, sizes), fresh(config, sizes)
    losses = finetune(whole, slates, config, FitOptions(), held_out)
    options = FitOptions(checkpoints=tmp_path, recipe="same")

    def listen(step: str, done: int, total: int, note: str = "") -> None:
        if (step, done) == stopped:
            raise Interrupted

    killed = replace(options, progress=listen)
    with pytest.raises(Interrupted):
        finetune(fresh(config, sizes), slates, config, killed, held_out)
    assert finetune(resumed, slates, config, options, held_out) == losses
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
