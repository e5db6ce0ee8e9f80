"""Lists the variants of the comparison: how each is trained and tuned.

In: examples and a recipe. Out: a scorer of slates. Every deep variant runs the product's
pre-training and fine-tuning; all see the same features, and each chooses its learning
rate, then its epochs, from one small grid by the calibrating slates' log loss.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import trees
from benchmarks.models.registry import BASELINES
from benchmarks.quality.clicks.click_examples import Examples, Part
from benchmarks.quality.clicks.click_pretraining import pretrained
from benchmarks.quality.clicks.click_scores import calibrated_loss
from srp4ctr.features.tensors.schema import CANDIDATE_TENSORS
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import slate_batch
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.click_model import ClickModel
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import finetune, serving_logits

MANY_SEEDS, SEEDS = 5, 3
REFERENCE = "srp4ctr"  # what the others are compared with
Changes = Mapping[str, Any]
# A grid is walked step by step; each step keeps what was best so far.
Grid = tuple[tuple[Changes, ...], ...]
# News are gone before their ids are trained: they must be known by their attributes.
ID_DROPOUTS: tuple[Changes, ...] = tuple({"id_dropout": share} for share in (0.3, 0.95))
RATES: tuple[Changes, ...] = tuple(
    {"finetune_learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)
)
# What was not pre-trained may want another rate : the default is 0.3.
ENCODER_RATES: tuple[Changes, ...] = ({"encoder_learning_rate_scale": 1.0},)
EPOCHS: tuple[Changes, ...] = tuple({"finetune_epochs": count} for count in (1, 3, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTask:
    """What a variant learns from, and by which recipe."""

    examples: Examples
    config: RefreshConfig
    pretrained_dir: Path
    """Where pre-trained encoders are cached, for all variants that share one."""
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A variant after its training."""

    logits: Callable[[Part], NDArray[np.float32]]
    """Uncalibrated, (R, N)."""
    seconds: Mapping[str, float]
    """CPU seconds by stage; a pre-training that was found on the disk counts in full."""
    flops: Mapping[int, int] = field(default_factory=dict)
    """FLOPs of a request by its number of candidates, as the model would serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVariant:
    """A click model in torch."""

    meaning: str
    build: Callable[[ModelConfig, TableSizes], ClickModel] = SRP4CTR
    is_pretrained: bool = False
    recipe: Changes = field(default_factory=dict)
    model: Changes = field(default_factory=dict)
    seeds: int = SEEDS
    grid: Grid = (ID_DROPOUTS, RATES, EPOCHS)
    tuned_as: str = ""
    """The variant whose choice it takes over; empty: it tunes itself."""

    def config(self, config: RefreshConfig, chosen: Changes) -> RefreshConfig:
        """Return ``config`` as this variant runs it."""
        model = replace(config.model, **self.model)
        return replace(config, **{**self.recipe, **chosen, "model": model})

    def learn(self, task: TrainingTask, chosen: Changes) -> TrainedModel:
        """Pre-train where the variant does, fine-tune; count what a request costs."""
        config = self.config(task.config, chosen)
        examples, seconds = task.examples, {}
        torch.manual_seed(config.seed)
        model = self.build(config.model, examples.sizes).to(task.device)
        if self.is_pretrained:
            assert isinstance(model, SRP4CTR)
            seconds["pretrain"] = pretrained(model, examples, config, task.pretrained_dir)
        began = time.process_time()
        finetune(model, examples.train.slates, config, FitOptions())
        seconds["finetune"] = time.process_time() - began
        return TrainedModel(
            logits=lambda part: serving_logits(model, part.slates),
            seconds=seconds,
            flops={n: request_flops(model, examples.judge, n) for n in (1, 100)},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeVariant:
    """LightGBM; its rounds are chosen by early stopping on the calibrating slates."""

    meaning: str
    objective: str
    seeds: int = MANY_SEEDS
    grid: Grid = (({"with_items": False}, {"with_items": True}),)
    tuned_as: str = ""

    def learn(self, task: TrainingTask, chosen: Changes) -> TrainedModel:
        """Grow trees on the tabular columns."""
        examples = task.examples
        began = time.process_time()
        columns = trees.columns_of(examples.train, chosen.get("with_items", False))
        booster = trees.learn(
            examples.train,
            examples.calibrate,
            columns,
            {"objective": self.objective, "seed": task.config.seed},
        )
        return TrainedModel(
            logits=lambda part: trees.logits(booster, columns, part),
            seconds={"finetune": time.process_time() - began},
        )


Variant = ModelVariant | TreeVariant


def tune(variant: Variant, task: TrainingTask) -> tuple[Changes, list[Changes]]:
    """Return the grid's choice that serves the calibrating slates best, and all tries."""
    chosen: Changes = {}
    tried: list[Changes] = []
    least = math.inf
    for step in variant.grid:
        best = chosen
        for changes in step:
            candidate = {**chosen, **changes}
            trained, part = variant.learn(task, candidate), task.examples.calibrate
            loss = calibrated_loss(part, trained.logits(part)[part.slates.shown])
            tried.append({**candidate, "log_loss": loss})
            if loss < least:
                best, least = candidate, loss
        chosen = best
    return chosen, tried


def request_flops(model: ClickModel, part: Part, candidates: int) -> int:
    """Return the counted FLOPs of a request with a long history and ``candidates``."""
    slates = part.slates
    longest = np.array([1, slates.tensors["history_item_rows"].shape[1]])
    device = next(model.parameters()).device
    tensors = slate_batch(slates, np.array([0]), longest, device).tensors
    for spec in CANDIDATE_TENSORS:
        first = tensors[spec.name]
        tensors[spec.name] = first.repeat(1, candidates, *[1] * (first.dim() - 2))
    model.eval()
    # With gradients: without, torch fuses its own transformer into what is not counted.
    with FlopCounterMode(display=False) as counter:
        model(tensors)
    return int(counter.get_total_flops())


def _ablation(
    meaning: str, recipe: Changes | None = None, model: Changes | None = None
) -> ModelVariant:
    """Return SRP4CTR with changes to its recipe or its blocks; it takes over its tuning."""
    return ModelVariant(
        meaning=meaning,
        is_pretrained=True,
        recipe=recipe or {},
        model=model or {},
        tuned_as=REFERENCE,
    )


def _baselines() -> dict[str, ModelVariant]:
    return {
        name: ModelVariant(
            meaning=_first_line(build),
            build=build,
            seeds=MANY_SEEDS if name in ("din", "bst") else SEEDS,
        )
        for name, build in BASELINES.items()
    }


def _first_line(build: Callable[..., ClickModel]) -> str:
    return (build.__doc__ or "").strip().partition("\n")[0]


VARIANTS: Mapping[str, Variant] = {
    REFERENCE: ModelVariant(
        meaning="SRP4CTR as a refresh trains it",
        is_pretrained=True,
        seeds=MANY_SEEDS,
        grid=(ID_DROPOUTS, RATES, EPOCHS, ENCODER_RATES),
    ),
    "srp4ctr-none": ModelVariant(
        meaning="SRP4CTR without pre-training",
        seeds=MANY_SEEDS,
        grid=(ID_DROPOUTS, RATES, EPOCHS, ENCODER_RATES),
    ),
    "lightgbm": TreeVariant(meaning="LightGBM, log loss", objective="binary"),
    "lightgbm-rank": TreeVariant(
        meaning="LightGBM, LambdaRank", objective="lambdarank", seeds=SEEDS
    ),
    **_baselines(),
    "srp4ctr-bert": _ablation("pre-trained on item ids alone", {"pretraining": "bert"}),
    "srp4ctr-items": _ablation("item-related masks alone", {"pretraining": "items"}),
    "srp4ctr-behaviors": _ablation("behaviour masks alone", {"pretraining": "behaviors"}),
    "srp4ctr-no-cross-attention": _ablation(
        "candidates do not look at the history", model={"use_cross_attention": False}
    ),
    "srp4ctr-no-querying": _ablation(
        "the mean state instead of queries", model={"use_querying": False}
    ),
    "srp4ctr-last-layer": _ablation(
        "candidates read the last layer alone", model={"use_all_layers": False}
    ),
    "srp4ctr-frozen-items": _ablation("the item table frozen", {"freeze": "item_table"}),
    "srp4ctr-frozen-encoder": _ablation("the encoder frozen", {"freeze": "encoder"}),
}
