"""A pre-trained encoder is trained once a seed and recipe, and shared by many arms."""

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.click_examples import Examples, code_digest
from training.config import RefreshConfig
from training.fitting import FitOptions
from training.model.srp4ctr import SRP4CTR
from training.pretraining import pretrain

# What only fine-tuning, judging or serving reads: an encoder is the same whatever it is.
NOT_OF_PRETRAINING = {
    *("finetune_epochs", "finetune_learning_rate", "encoder_learning_rate_scale"),
    *("freeze", "layer_decay", "slate_loss_weight", "fake_negative_weighted"),
    *("batch_requests", "held_out_share", "min_auc", "max_calibration_error"),
    *("bundles_dir", "patience", "tensorboard_dir"),
}
NOT_OF_ENCODER = {
    *("head_width", "num_cross_layers", "num_queries", "num_spans"),
    *("use_cross_attention", "use_querying", "use_all_layers"),
}
PRETRAINING_CODE = ("training/pretraining.py", "training/masking.py", "training/model")


def pretrained(
    model: SRP4CTR, examples: Examples, config: RefreshConfig, folder: Path
) -> float:
    """Pre-train ``model`` in place, or take over what ``folder`` holds; return CPU seconds.

    Only what pre-training changed is kept, so that the rest stays as it was drawn.
    """
    file = folder / f"{pretraining_digest(examples.digest, config)}.safetensors"
    if file.is_file():
        return _take_over(model, file)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    began = time.process_time()
    pretrain(model, examples.windows, config, FitOptions())
    seconds = time.process_time() - began
    changed = {
        name: tensor.contiguous().cpu().clone()
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    changed["seconds"] = torch.tensor(seconds)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    save_file(changed, unfinished)
    unfinished.rename(file)
    return seconds


def _take_over(model: SRP4CTR, file: Path) -> float:
    found: dict[str, Tensor] = load_file(file)
    seconds = float(found.pop("seconds"))
    own = model.state_dict()
    model.load_state_dict({k: v for k, v in found.items() if k in own}, strict=False)
    return seconds


def pretraining_digest(examples: str, config: RefreshConfig) -> str:
    """Return what names the encoder of these examples (their digest) and recipe."""
    recipe = {k: v for k, v in asdict(config).items() if k not in NOT_OF_PRETRAINING}
    recipe["model"] = {k: v for k, v in recipe["model"].items() if k not in NOT_OF_ENCODER}
    text = json.dumps([examples, recipe, code_digest(*PRETRAINING_CODE)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
