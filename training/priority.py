"""A machine shared with serving: the refresh process takes what is left, and no more."""

import os

import torch

from srp4ctr.training.config import RefreshConfig


def yield_to_serving(config: RefreshConfig) -> None:
    """Lower this process's priority and cap its part of the GPU; once a process.

    What exceeds the cap ends in torch's ``OutOfMemoryError``, and serving has its own.
    """
    if config.niceness > 0:
        os.nice(config.niceness)
    is_capped = config.max_gpu_memory_share < 1.0 and config.device != "cpu"
    if is_capped and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(config.max_gpu_memory_share)
