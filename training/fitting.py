"""The loop that both stages share: epochs, batches, a falling learning rate, checkpoints.

In: a stage (an objective and its optimiser) and how many rows it has. Out: its mean loss
per epoch. A step's order, masks and dropout depend on seed, stage and step alone, and its
loss on the whole batch: a resumed run, two processes, or a batch in parts learn the same.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training import batch_order, checkpoints
from training.checkpoints import Progress
from training.config import RefreshConfig
from training.model.draws import Part, drawing
from training.objective import Objective, Terms, loss_of
from training.parallel import ALONE, Processes
from training.progress import ProgressListener, silent
from training.schedule import Schedule

MAX_GRADIENT_NORM = 1.0
NOTE_EVERY_S = 0.2  # reading the loss waits for the device
NOTED_STEPS = 20  # whose mean loss is shown: one batch's is noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training."""

    name: str
    objective: Objective
    optimiser: torch.optim.Optimizer
    rows: int
    batch_rows: int
    epochs: int
    seed: int
    config: RefreshConfig
    """Its dials of the loop: accumulate, bucket_by_length, checkpoint_every_s."""

    @property
    def steps_an_epoch(self) -> int:
        """How many batches the rows make."""
        return math.ceil(self.rows / self.batch_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """What surrounds a stage and does not change its result (but for ``seconds``)."""

    checkpoint: Path | None = None
    recipe: str = ""
    seconds: float | None = None
    """The stage ends after so long; the learning rate falls with whichever is further
    on, the clock or the steps, so that a stage cut short still ends on a low one."""
    progress: ProgressListener = silent
    processes: Processes = ALONE


def fit(stage: Stage, options: FitOptions) -> tuple[float, ...]:
    """Train ``stage``, from its checkpoint if there is one; return each epoch's loss."""
    with _reproducible(next(stage.objective.parameters()).device):
        run = _Run.start(stage, options)
        for epoch in range(run.epoch, stage.epochs):
            if run.progress.is_over:
                break
            run.one_epoch(epoch)
        run.finish()
    return run.losses()


@dataclass(slots=True, kw_only=True)
class _Run:
    """A stage at work."""

    stage: Stage
    options: FitOptions
    module: nn.Module
    """The objective, as the processes share it."""
    schedule: Schedule
    progress: Progress
    saved_at: float
    noted_at: float = -math.inf
    note: str = ""
    rows_seen: int = 0

    @classmethod
    def start(cls, stage: Stage, options: FitOptions) -> "_Run":
        """Return the stage where its checkpoint left it, or at its beginning."""
        steps = stage.epochs * stage.steps_an_epoch
        now = time.monotonic()
        schedule = Schedule(
            rates=[group["lr"] for group in stage.optimiser.param_groups],
            steps=steps,
            began=now,
            seconds=options.seconds,
            processes=options.processes,
        )
        found = None
        if options.checkpoint is not None:
            found = checkpoints.load(
                options.checkpoint, stage.objective, stage.optimiser, options.recipe
            )
        device = next(stage.objective.parameters()).device
        return cls(
            stage=stage,
            options=options,
            module=options.processes.wrap(stage.objective),
            schedule=schedule,
            progress=found or Progress(curve=torch.full((steps,), math.nan, device=device)),
            saved_at=now,
        )

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to."""
        return self.progress.steps_done // max(self.stage.steps_an_epoch, 1)

    def one_epoch(self, epoch: int) -> None:
        """Run what is left of ``epoch``, or what the clock leaves of it."""
        stage = self.stage
        stage.objective.train()
        batches = batch_order.batches(
            np.arange(stage.rows),
            stage.objective.lengths if stage.config.bucket_by_length else None,
            stage.batch_rows,
            seed=_seed(stage.seed, epoch),
        )
        first = self.progress.steps_done - epoch * stage.steps_an_epoch
        for rows in batches[first:]:
            self._announce()
            self._step(rows)
            if self.schedule.spent(self.progress.steps_done) >= 1.0:
                self.progress.is_over = True
                return
            if time.monotonic() - self.saved_at >= stage.config.checkpoint_every_s:
                self._save()

    def finish(self) -> None:
        """Say that it is over, and keep where it ended."""
        if not self.progress.is_over or self.rows_seen:
            self.progress.is_over = True
            self._save()
        self.noted_at = -math.inf
        self._announce(is_over=True)

    def losses(self) -> tuple[float, ...]:
        """Return the mean loss of the steps of each epoch that was begun."""
        done, an_epoch = self.progress.steps_done, max(self.stage.steps_an_epoch, 1)
        epochs = [self.progress.curve[k : k + an_epoch] for k in range(0, done, an_epoch)]
        return tuple(float(epoch.nanmean()) for epoch in epochs)

    def _step(self, rows: NDArray[np.int64]) -> None:
        """Learn from one batch: this process from its parts, one after another."""
        stage, step = self.stage, self.progress.steps_done
        self.schedule.apply(stage.optimiser, step)
        stage.optimiser.zero_grad(set_to_none=True)
        longest = stage.objective.lengths[rows].max(axis=0)
        parts = self._parts(len(rows))
        seed = _seed(stage.seed, stage.epochs + step)
        counts = self._counts(rows, longest, parts, seed) if len(parts) > 1 else None
        loss = torch.zeros((), device=self.progress.curve.device)
        for part in parts:
            with self._gradients_wait(part is not parts[-1]), drawing(seed, part):
                terms = self._terms(rows, longest, part)
                own = loss_of(terms, counts or self._added(terms))
                # The wrapper averages over the processes what is a sum.
                (own * self.options.processes.count).backward()  # type: ignore[no-untyped-call]
            loss += own.detach()
        trained = [p for group in stage.optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        stage.optimiser.step()
        self.progress.curve[step] = self.options.processes.add(loss)
        self.progress.steps_done += 1
        self.rows_seen += len(rows)

    def _parts(self, whole: int) -> list[Part]:
        """Return this process's parts of a batch; with few rows some are empty."""
        processes, accumulate = self.options.processes, self.stage.config.accumulate
        cuts = np.linspace(0, whole, processes.count * accumulate + 1).astype(int).tolist()
        mine = range(processes.rank * accumulate, (processes.rank + 1) * accumulate)
        return [Part(first=cuts[k], rows=cuts[k + 1] - cuts[k], whole=whole) for k in mine]

    def _terms(
        self, rows: NDArray[np.int64], longest: NDArray[np.int64], part: Part
    ) -> Terms:
        own = rows[part.first : part.first + part.rows]
        terms: Terms = self.module(self.stage.objective.batch(own, longest))
        return terms

    @torch.no_grad()
    def _counts(
        self,
        rows: NDArray[np.int64],
        longest: NDArray[np.int64],
        parts: list[Part],
        seed: int,
    ) -> dict[str, Tensor]:
        """Return the counts of a batch in parts, which the first part's loss needs.

        They come of a pass without gradients: a third more work, for memory.
        """
        found: dict[str, Tensor] = {}
        for part in parts:
            with drawing(seed, part):
                for name, (_, count) in self._terms(rows, longest, part).items():
                    found[name] = found.get(name, 0) + count
        return {name: self.options.processes.add(count) for name, count in found.items()}

    def _added(self, terms: Terms) -> dict[str, Tensor]:
        """Return the counts of a batch of which each process has a part."""
        return {
            name: self.options.processes.add(count) for name, (_, count) in terms.items()
        }

    def _gradients_wait(self, wait: bool) -> AbstractContextManager[None]:
        """Keep gradients to this process while more of its parts are to come."""
        if wait and isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return nullcontext()

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if self.options.checkpoint is None or not self.options.processes.is_first:
            return
        checkpoints.save(
            self.options.checkpoint,
            self.stage.objective,
            self.stage.optimiser,
            self.progress,
            self.options.recipe,
        )

    def _announce(self, is_over: bool = False) -> None:
        now, done = time.monotonic(), self.progress.steps_done
        if now - self.noted_at >= NOTE_EVERY_S and done:
            self.noted_at = now
            loss = self.progress.curve[max(done - NOTED_STEPS, 0) : done].mean()
            rate = self.rows_seen / max(now - self.schedule.began, 1e-9)
            self.note = f"loss {float(loss):.4f}  {rate:,.0f} rows/s"
        total = self.schedule.steps
        self.options.progress(self.stage.name, total if is_over else done, total, self.note)


def _seed(*numbers: int) -> int:
    """Return a seed that is as good as independent of that of any other numbers."""
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
