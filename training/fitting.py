"""The loop that both stages share: epochs, batches, a falling learning rate, checkpoints.

In: a stage (modules, optimiser, loss of a batch) and how many rows it has. Out: its mean
loss per epoch. An epoch's order, masks and dropout depend on seed, stage and epoch alone,
so that a resumed run equals an uninterrupted one.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training import checkpoints
from training.progress import ProgressListener, silent

WARM_UP_STEPS = 20  # Adam's second moments are noise before
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training."""

    name: str
    modules: Mapping[str, nn.Module]
    optimiser: torch.optim.Optimizer
    loss: Callable[[NDArray[np.int64]], Tensor]
    """The loss of the rows of one batch, with a graph to differentiate."""
    rows: int
    batch_rows: int
    epochs: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """What surrounds a stage and does not change its result (but for ``seconds``)."""

    checkpoint: Path | None = None
    recipe: str = ""
    seconds: float | None = None
    """The stage ends after so long; the learning rate falls with whichever is further
    on, the clock or the steps, so that a stage cut short still ends on a low one."""
    progress: ProgressListener = silent


def fit(stage: Stage, options: FitOptions) -> tuple[float, ...]:
    """Train ``stage``, from its checkpoint if there is one; return each epoch's loss."""
    schedule = _Schedule(
        rates=[group["lr"] for group in stage.optimiser.param_groups],
        steps=stage.epochs * math.ceil(stage.rows / stage.batch_rows),
        began=time.monotonic(),
        seconds=options.seconds or math.inf,
    )
    done, losses = _resume(stage, options)
    for epoch in range(done, stage.epochs):
        options.progress(stage.name, epoch, stage.epochs, _note(losses))
        if schedule.spent(0) >= 1.0:
            break
        losses = (*losses, _run_epoch(stage, epoch, schedule))
        if options.checkpoint is not None:
            progress = checkpoints.Progress(
                epochs_done=epoch + 1, losses=losses, recipe=options.recipe
            )
            checkpoints.save(options.checkpoint, stage.modules, stage.optimiser, progress)
    options.progress(stage.name, stage.epochs, stage.epochs, _note(losses))
    return losses


def _resume(stage: Stage, options: FitOptions) -> tuple[int, tuple[float, ...]]:
    if options.checkpoint is None:
        return 0, ()
    found = checkpoints.load(
        options.checkpoint, stage.modules, stage.optimiser, options.recipe
    )
    return (found.epochs_done, found.losses) if found else (0, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Schedule:
    """The learning rates by step: warm up, then fall to nothing.

    The paper decays polynomially; power 1 was as good as any here.
    """

    rates: list[float]
    steps: int
    began: float
    seconds: float

    def spent(self, step: int) -> float:
        """Return the share of the stage that is over: by its steps or by the clock."""
        by_clock = (time.monotonic() - self.began) / self.seconds
        return max(step / max(self.steps, 1), by_clock)

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        share = warm * max(1.0 - self.spent(step), 0.0)
        for group, rate in zip(optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * share


def _run_epoch(stage: Stage, epoch: int, schedule: _Schedule) -> float:
    """Run one epoch, or what the clock leaves of it, and return its mean loss."""
    seed = stage.seed * 1000 + epoch
    torch.manual_seed(seed)
    order = np.random.default_rng(seed).permutation(stage.rows)
    starts = range(0, stage.rows, stage.batch_rows)
    for module in stage.modules.values():
        module.train()
    losses: list[float] = []
    for step, start in enumerate(starts, start=epoch * len(starts)):
        if losses and schedule.spent(step) >= 1.0:
            break
        schedule.apply(stage.optimiser, step)
        losses.append(_step(stage, order[start : start + stage.batch_rows]))
    return sum(losses) / max(len(losses), 1)


def _step(stage: Stage, rows: NDArray[np.int64]) -> float:
    stage.optimiser.zero_grad(set_to_none=True)
    loss = stage.loss(rows)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in stage.optimiser.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
    stage.optimiser.step()
    return float(loss.detach())


def _note(losses: tuple[float, ...]) -> str:
    return f"loss {losses[-1]:.4f}" if losses else ""
