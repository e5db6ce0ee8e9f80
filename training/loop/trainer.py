"""The trainer loop of all stages: epochs, batches, a falling learning rate, checkpoints.

In: a stage (an objective and its optimiser) and how many rows it has. Out: its mean loss
per epoch. A step's order, masks and dropout depend on seed, stage and step only, and its
loss on the whole batch: a resumed run, two processes, or a batch in parts train the same.

A stage that validates, and ends with greater held-out losses than it had after an earlier
epoch, is trained again for fewer epochs, so that its learning rate falls to 0 there.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import batches
from srp4ctr.training.loop import checkpoints
from srp4ctr.training.loop.checkpoints import Progress
from srp4ctr.training.loop.distributed import ALONE, Processes, cpu_threads
from srp4ctr.training.loop.progress import ProgressListener, ScalarLog, silent, unlogged
from srp4ctr.training.loop.row_adamw import RowAdamW, moved_when_read
from srp4ctr.training.loop.train_step import Objective, TrainStep

CHECKPOINT_EVERY_S = 60.0
"""A refresh that is killed resumes from the last step kept, exactly."""
REPORT_EVERY_S = 0.2  # reading the loss waits for the device
REPORTED_STEPS = 20  # whose mean loss is shown: one batch's is noise
WARM_UP_STEPS = 20  # Adam's second moments are noise before


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training."""

    name: str
    objective: Objective
    optimiser: RowAdamW
    rows: int
    """Of the objective's examples."""
    batch_rows: int
    epochs: int
    seed: int
    config: RefreshConfig
    """Its settings of the loop, as ``precision``."""
    validate: Callable[[], NDArray[np.float64]] | None = None
    """Returns the losses of held-out requests, one by one; None: all epochs are trained."""

    @property
    def steps_per_epoch(self) -> int:
        """How many batches the rows make."""
        return math.ceil(self.rows / self.batch_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """The environment of a stage, which does not change its result."""

    checkpoints: Path | None = None
    """The folder of the stages' checkpoints; None writes none."""
    recipe: str = ""
    progress: ProgressListener = silent
    log: ScalarLog = unlogged
    processes: Processes = ALONE


def fit(stage: Stage, options: FitOptions) -> tuple[float, ...]:
    """Train ``stage``, from its checkpoint if there is one; return each epoch's loss.

    Those of the second training, where there is one.
    """
    initial = {}
    if stage.validate is not None:
        weights = checkpoints.weights(stage.objective)
        initial = {name: tensor.clone() for name, tensor in weights.items()}
    device = next(stage.objective.parameters()).device
    with _reproducible(device), cpu_threads(stage.config.threads):
        run = _Run.start(stage, options)
        with moved_when_read(stage.objective, stage.optimiser):
            while not run.progress.is_over and run.progress.steps_done < run.steps:
                run.one_epoch()
        run.finish()
    if not (epochs := run.progress.best_epochs):
        return run.losses()
    checkpoints.restore(stage.objective, initial)
    run.reset_optimiser()
    again = replace(stage, name=f"{stage.name} again", epochs=epochs, validate=None)
    return fit(again, options)


@dataclass(slots=True, kw_only=True)
class _Run:
    """A stage in training."""

    stage: Stage
    options: FitOptions
    train_step: TrainStep
    peak_rates: list[float]
    """Of the optimiser's groups."""
    progress: Progress
    began: float
    saved_at: float
    reported_at: float
    note: str = ""
    rates: list[float] = field(default_factory=list)
    """The learning rate of each step of this run that is not logged yet."""
    rows_seen: int = 0

    @classmethod
    def start(cls, stage: Stage, options: FitOptions) -> "_Run":
        """Return the stage where its checkpoint left it, or at its beginning."""
        objective, optimiser = stage.objective, stage.optimiser
        steps, now = stage.epochs * stage.steps_per_epoch, time.monotonic()
        peak_rates = [group["lr"] for group in optimiser.param_groups]
        found = None
        if (file := _checkpoint(stage, options)) is not None:
            found = checkpoints.load(file, objective, optimiser, options.recipe)
        device = next(objective.parameters()).device
        return cls(
            stage=stage,
            options=options,
            train_step=TrainStep.of(objective, optimiser, options.processes, stage.config),
            peak_rates=peak_rates,
            progress=found or Progress(curve=torch.full((steps,), math.nan, device=device)),
            began=now,
            saved_at=now,
            reported_at=-math.inf,
        )

    @property
    def steps(self) -> int:
        """How many steps the stage has."""
        return len(self.progress.curve)

    def one_epoch(self) -> None:
        """Run the rest of the epoch."""
        stage, progress = self.stage, self.progress
        stage.objective.train()
        epoch, done = divmod(progress.steps_done, stage.steps_per_epoch)
        seed = _seed(stage.seed, epoch)
        for rows in self._batches(seed)[done:]:
            self._report()
            self._step(rows)
            if progress.steps_done % stage.steps_per_epoch == 0:
                break  # validated before it is saved: resumed, an epoch is done or not
            self._save_if_due()
        if stage.validate is not None:
            self._look(stage.validate())
        self._save_if_due()

    def finish(self) -> None:
        """Report the end, and save the state."""
        self.stage.optimiser.settle()
        if self.rows_seen:
            self.progress.is_over = True
            self._save()
        self.reported_at = -math.inf
        self._report(is_over=True)

    def reset_optimiser(self) -> None:
        """Give the optimiser the state that it had before the stage."""
        optimiser = self.stage.optimiser
        optimiser.state.clear()
        for group, rate in zip(optimiser.param_groups, self.peak_rates, strict=True):
            group["lr"] = rate

    def losses(self) -> tuple[float, ...]:
        """Return the mean loss of each started epoch."""
        done, per_epoch = self.progress.steps_done, max(self.stage.steps_per_epoch, 1)
        epochs = [self.progress.curve[k : k + per_epoch] for k in range(0, done, per_epoch)]
        return tuple(float(epoch.nanmean()) for epoch in epochs)

    def _batches(self, seed: int) -> list[NDArray[np.int64]]:
        stage, rows = self.stage, np.arange(self.stage.rows)
        by_length = stage.config.bucket_by_length
        lengths = stage.objective.lengths[rows] if by_length else None
        return batches.epoch_batches(rows, lengths, stage.batch_rows, seed)

    def _step(self, rows: NDArray[np.int64]) -> None:
        stage, progress = self.stage, self.progress
        self._set_rates()
        self.rates.append(stage.optimiser.param_groups[0]["lr"])
        seed = _seed(stage.seed, stage.epochs + progress.steps_done)
        terms = self.train_step.run(rows, seed)
        progress.curve[progress.steps_done] = torch.stack([*terms.values()]).sum()
        progress.steps_done += 1
        self.rows_seen += len(rows)

    def _set_rates(self) -> None:
        """Warm up, then fall to 0: the paper's decay; no other power was better than 1."""
        step = self.progress.steps_done
        share = min(1.0, (step + 1) / WARM_UP_STEPS) * (1.0 - step / self.steps)
        for group, rate in zip(
            self.stage.optimiser.param_groups, self.peak_rates, strict=True
        ):
            group["lr"] = rate * share

    def _look(self, losses: NDArray[np.float64]) -> None:
        """Keep held-out ``losses``; at the end, find after how many epochs to end.

        Only then has the learning rate fallen: before, an epoch may be worse by chance.
        """
        progress, stage, new = self.progress, self.stage, torch.from_numpy(losses)[None]
        self.options.log(f"{stage.name}/validation", float(new.mean()), progress.steps_done)
        before = progress.validated if len(progress.validated) else new[:0]
        progress.validated = torch.cat([before, new])
        if progress.steps_done == self.steps:
            epochs = _best_epochs(progress.validated.numpy())
            progress.best_epochs = int(self.options.processes.broadcast(epochs))

    def _save_if_due(self) -> None:
        if time.monotonic() - self.saved_at >= CHECKPOINT_EVERY_S:
            self._save()

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        stage = self.stage
        path = _checkpoint(stage, self.options)
        if path is not None and self.options.processes.is_first:
            checkpoints.save(
                path, stage.objective, stage.optimiser, self.progress, self.options.recipe
            )

    def _report(self, is_over: bool = False) -> None:
        """Report progress; the loss and the curves at intervals."""
        now, done, curve = time.monotonic(), self.progress.steps_done, self.progress.curve
        total, name = self.steps, self.stage.name
        if now - self.reported_at >= REPORT_EVERY_S and done:
            self.reported_at = now
            loss = float(curve[max(done - REPORTED_STEPS, 0) : done].mean())
            speed = self.rows_seen / max(now - self.began, 1e-9)
            self.note = f"loss {loss:.4f}  {speed:,.0f} rows/s"
            first = done - len(self.rates)
            for step, value in enumerate(curve[first:done].tolist(), start=first):
                self.options.log(f"{name}/loss", value, step)
                self.options.log(f"{name}/learning_rate", self.rates[step - first], step)
            self.rates.clear()
        self.options.progress(name, total if is_over else done, total, self.note)


def _best_epochs(losses: NDArray[np.float64]) -> int:
    """Return the fewest epochs as good as the best, by ``losses`` (epochs, requests).

    Two are as good as each other if they differ by less than a standard error of the
    difference (Breiman et al., Classification and Regression Trees, 1984: the one-SE rule).
    0 if all epochs are, or if too few requests were held out.
    """
    if losses.shape[1] < 2:
        return 0
    best = losses[losses.mean(axis=1).argmin()]
    more = losses - best  # (epochs, requests)
    errors = more.std(axis=1) / math.sqrt(losses.shape[1])
    is_good = more.mean(axis=1) <= errors
    return 0 if is_good[-1] else 1 + int(is_good.argmax())


def _checkpoint(stage: Stage, options: FitOptions) -> Path | None:
    folder = options.checkpoints
    return None if folder is None else folder / f"{stage.name}.safetensors"


def _seed(*numbers: int) -> int:
    """Return a seed that is practically independent of other seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """On a CPU, add gradients in one order whatever the threads; restored afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    filling = torch.utils.deterministic
    fills = filling.fill_uninitialized_memory  # type: ignore[attr-defined]
    filling.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        filling.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
