"""Lists the variants of the comparison: how each is trained.

In: examples and a recipe. Out: a scorer of slates. Every deep variant runs the product's
pre-training and fine-tuning by one recipe; all see the same features. An encoder is
pre-trained once for all variants, of one seed, that begin with it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness.runs import TRAINING_CODE, code_digest, trained_once
from benchmarks.models import history_columns, trees
from benchmarks.models.baselines import BASELINES
from benchmarks.quality.clicks.click_examples import Examples, Part
from benchmarks.quality.clicks.click_scores import one_score
from srp4ctr.features.tensors.schema import CANDIDATE_TENSORS
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import slate_batch
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.click_model import ClickModel
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.heads.scores import Scores
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.feedback import pretrain_on_feedback
from srp4ctr.training.objectives.finetuning import finetune, serving_logits
from srp4ctr.training.objectives.pretraining import pretrain

MANY_SEEDS, SEEDS = 5, 3
REFERENCE = "srp4ctr"  # what the others are compared with
Changes = Mapping[str, Any]
# What only fine-tuning, judging or serving reads: an encoder is the same whatever it is.
NOT_OF_PRETRAINING = {
    "finetune_epochs",
    "finetune_learning_rate",
    "encoder_learning_rate_scale",
    "freeze",
    "slate_loss_weight",
    "fake_negative_weighted",
    "batch_requests",
    "held_out_share",
    "held_out_clicks",
    "min_auc",
    "max_calibration_error",
    "bundles_dir",
    "bundles_uri",
}
NOT_OF_ENCODER = {"head_width", "num_queries"}


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

    logits: Callable[[Part], Scores[NDArray[np.float32]]]
    """Uncalibrated, (R, N); a model with one score orders by it, too."""
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
    """By masks, and on feedback."""
    learns_feedback: bool = False
    """On feedback alone."""
    recipe: Changes = field(default_factory=dict)
    seeds: int = SEEDS

    def config(self, config: RefreshConfig) -> RefreshConfig:
        """Return ``config`` as this variant runs it."""
        return replace(config, **self.recipe)

    def learn(self, task: TrainingTask) -> TrainedModel:
        """Pre-train where the variant does, fine-tune; count what a request costs."""
        config = self.config(task.config)
        examples, seconds = task.examples, {}
        torch.manual_seed(config.seed)
        model = self.build(config.model, examples.sizes).to(task.device)
        if self.is_pretrained:
            assert isinstance(model, SRP4CTR)
            folder = task.pretrained_dir
            seconds["pretrain"] = pretrained(model, examples, config, folder)
        if isinstance(model, SRP4CTR):  # all differ in pre-training only
            model.cross_attention.copy_from(model.encoder)
        if self.is_pretrained or self.learns_feedback:
            began, labels = time.process_time(), examples.train.slates
            pretrain_on_feedback(model, examples.windows, labels, config, FitOptions())
            took = time.process_time() - began
            seconds["pretrain"] = seconds.get("pretrain", 0.0) + took
        began = time.process_time()
        held_out = examples.calibrate.slates
        finetune(model, examples.train.slates, config, FitOptions(), held_out)
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
    reads_histories: bool = False

    def learn(self, task: TrainingTask) -> TrainedModel:
        """Grow trees on the tabular columns."""
        examples = task.examples
        began = time.process_time()
        histories = (
            history_columns.columns_of(examples.train) if self.reads_histories else None
        )
        columns = trees.columns_of(examples.train, histories)
        booster = trees.learn(
            examples.train,
            examples.calibrate,
            columns,
            {"objective": self.objective, "seed": task.config.seed},
        )
        return TrainedModel(
            logits=lambda part: one_score(trees.logits(booster, columns, part)),
            seconds={"finetune": time.process_time() - began},
        )


Variant = ModelVariant | TreeVariant


def pretrained(
    model: SRP4CTR, examples: Examples, config: RefreshConfig, folder: Path
) -> float:
    """Pre-train ``model`` in place, or take it over from ``folder``; return CPU seconds."""
    recipe = {k: v for k, v in asdict(config).items() if k not in NOT_OF_PRETRAINING}
    recipe["model"] = {k: v for k, v in recipe["model"].items() if k not in NOT_OF_ENCODER}
    text = json.dumps([examples.digest, recipe, code_digest(*TRAINING_CODE)])
    file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    return trained_once(
        model, file, lambda: pretrain(model, examples.windows, config, FitOptions())
    )


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


VARIANTS: Mapping[str, Variant] = {
    REFERENCE: ModelVariant(
        meaning="SRP4CTR as a refresh trains it",
        is_pretrained=True,
        seeds=MANY_SEEDS,
    ),
    "srp4ctr-none": ModelVariant(
        meaning="SRP4CTR without pre-training",
        # A lower rate would keep what was not learned.
        recipe={"encoder_learning_rate_scale": 1.0},
        seeds=MANY_SEEDS,
    ),
    "srp4ctr-feedback": ModelVariant(
        meaning="SRP4CTR, pre-trained on feedback alone",
        learns_feedback=True,
    ),
    "bst-feedback": ModelVariant(
        meaning="BST, pre-trained on feedback as SRP4CTR is",
        build=BASELINES["bst"],
        learns_feedback=True,
    ),
    "pnn-feedback": ModelVariant(
        meaning="PNN, pre-trained on feedback as SRP4CTR is",
        build=BASELINES["pnn"],
        learns_feedback=True,
    ),
    "lightgbm": TreeVariant(meaning="LightGBM, log loss", objective="binary"),
    "lightgbm-history": TreeVariant(
        meaning="LightGBM, log loss, with counts of the history beside the same columns",
        objective="binary",
        reads_histories=True,
    ),
    "lightgbm-rank": TreeVariant(
        meaning="LightGBM, LambdaRank", objective="lambdarank", seeds=SEEDS
    ),
    **{
        name: ModelVariant(
            meaning=(build.__doc__ or "").partition("\n")[0],
            build=build,
            seeds=MANY_SEEDS if name in ("din", "bst") else SEEDS,
        )
        for name, build in BASELINES.items()
    },
}
