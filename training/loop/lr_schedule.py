"""The learning rate by step: it warms up, then falls to 0, by steps or by time.

The paper's decay is polynomial; no other power was better than 1 here.
"""

import time
from dataclasses import dataclass

import torch

from srp4ctr.training.loop.distributed import Processes

WARM_UP_STEPS = 20  # Adam's second moments are noise before


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The rates of an optimiser's groups over ``steps`` steps or ``seconds`` seconds."""

    rates: list[float]
    steps: int
    began: float
    """By ``time.monotonic``."""
    seconds: float | None
    processes: Processes

    def spent(self, step: int) -> float:
        """Return the finished share of the stage, by steps or by time."""
        by_steps = step / max(self.steps, 1)
        if self.seconds is None:
            return by_steps
        by_clock = (time.monotonic() - self.began) / self.seconds
        return max(by_steps, self.processes.broadcast(by_clock))

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> float:
        """Set the rates of ``step``, and return their share of the peak rate."""
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        share = warm * max(1.0 - self.spent(step), 0.0)
        for group, rate in zip(optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        return share
