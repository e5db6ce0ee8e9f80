"""Caches pre-trained encoders: each is trained once, for all runs that begin with it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def trained_once(module: nn.Module, file: Path, train: Callable[[], object]) -> float:
    """Train ``module`` in place, or load what ``file`` holds.

    Returns the CPU seconds of the training, cached or not. Only what it changed is cached:
    the rest stays as it was drawn, and runs may differ in parts that it does not touch.
    """
    own = module.state_dict()
    if file.is_file():
        found = load_file(file)
        seconds = float(found.pop("seconds"))
        module.load_state_dict({k: v for k, v in found.items() if k in own}, strict=False)
        return seconds
    before = {name: tensor.clone() for name, tensor in own.items()}
    began = time.process_time()
    train()
    seconds = time.process_time() - began
    changed = {
        name: tensor.contiguous().cpu().clone()
        for name, tensor in module.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    changed["seconds"] = torch.tensor(seconds)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    save_file(changed, unfinished)
    unfinished.rename(file)
    return seconds
