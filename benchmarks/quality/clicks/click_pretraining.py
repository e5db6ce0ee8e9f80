"""The click variants' encoders: one per seed and recipe of pre-training."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.code_fingerprint import TRAINING_CODE, code_digest
from benchmarks.harness.encoder_cache import trained_once
from benchmarks.quality.clicks.click_examples import Examples
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.pretraining import pretrain

# What only fine-tuning, judging or serving reads: an encoder is the same whatever it is.
NOT_OF_PRETRAINING = {
    *("finetune_epochs", "finetune_learning_rate", "encoder_learning_rate_scale"),
    *("freeze", "slate_loss_weight", "fake_negative_weighted"),
    *("batch_requests", "held_out_share", "min_auc", "max_calibration_error"),
    *("bundles_dir", "patience", "tensorboard_dir"),
}
NOT_OF_ENCODER = {
    *("head_width", "num_cross_layers", "num_queries", "num_spans"),
    *("use_cross_attention", "use_querying", "use_all_layers"),
}


def pretrained(
    model: SRP4CTR, examples: Examples, config: RefreshConfig, folder: Path
) -> float:
    """Pre-train ``model`` in place, or take it over from ``folder``; return CPU seconds."""
    file = folder / f"{pretraining_digest(examples.digest, config)}.safetensors"
    return trained_once(
        model, file, lambda: pretrain(model, examples.windows, config, FitOptions())
    )


def pretraining_digest(examples: str, config: RefreshConfig) -> str:
    """Return what names the encoder of these examples (their digest) and recipe."""
    recipe = {k: v for k, v in asdict(config).items() if k not in NOT_OF_PRETRAINING}
    recipe["model"] = {k: v for k, v in recipe["model"].items() if k not in NOT_OF_ENCODER}
    text = json.dumps([examples, recipe, code_digest(*TRAINING_CODE)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
