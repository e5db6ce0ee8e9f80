"""One training step: the rows of a batch → gradients of its whole loss → new weights.

In: the objective of a stage and its optimiser. Out: the loss of the batch. An objective
gives sums and counts, which add up over parts of a batch and over processes before they are
divided: the loss is the same however a batch is split.
"""

import abc
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.loop.distributed import Processes
from srp4ctr.training.loop.row_adamw import large_tables
from srp4ctr.training.model.dropout import Part, drawing

MAX_GRADIENT_NORM = 1.0
Sums = Mapping[str, Tensor]
"""The summed losses of each term's targets, by name; always the same names."""
Counts = Mapping[str, Tensor]
"""The number of each term's targets, which may be 0. The loss is Σ sum / count."""


class Objective(nn.Module, abc.ABC):
    """A module over all that the stage trains, whose output is the terms of the loss."""

    lengths: NDArray[np.int64]
    """How long each example's sequences are: (rows, kinds), the costliest kind last."""
    target_counts: NDArray[np.float64]
    """How many targets each example has, (rows,), or is expected to have. A batch has the
    weight of its targets: each target counts the same, also where rows of similar lengths
    share a batch."""

    @abc.abstractmethod
    def batch(self, rows: NDArray[np.int64], longest: NDArray[np.int64]) -> Any:
        """Return examples ``rows`` (perhaps none), sequences cut to ``longest`` (kinds).

        What is drawn at random for the loss, as masks are, is drawn here.
        """

    @abc.abstractmethod
    def counts(self, batch: Any) -> Counts:
        """Return how many targets ``batch`` has: no model runs."""

    @abc.abstractmethod
    def forward(self, batch: Any) -> Sums:
        """Return the summed losses of the targets of ``batch``."""


def loss_of(sums: Sums, counts: Counts) -> Tensor:
    """Return Σ sum / count; ``counts`` are of the whole batch, ``sums`` of a part."""
    return torch.stack([*mean_of(sums, counts).values()]).sum()


def mean_of(sums: Sums, counts: Counts) -> dict[str, Tensor]:
    """Return each sum / count; 0 of none."""
    return {name: total / counts[name].clamp(min=1) for name, total in sums.items()}


@torch.no_grad()
def clip(optimiser: torch.optim.Optimizer) -> None:
    """Scale the gradients to a norm of ``MAX_GRADIENT_NORM`` where theirs is greater.

    As ``nn.utils.clip_grad_norm_``, which refuses sparse gradients: theirs are coalesced.
    """
    trained = [param for group in optimiser.param_groups for param in group["params"]]
    gradients = [
        each.grad.values() if each.grad.is_sparse else each.grad
        for each in trained
        if each.grad is not None
    ]
    norm = nn.utils.get_total_norm(gradients)
    scale = (MAX_GRADIENT_NORM / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """An objective with its optimiser, in these processes and this precision."""

    objective: Objective
    optimiser: torch.optim.Optimizer
    processes: Processes
    config: RefreshConfig
    module: nn.Module
    """The objective, as the processes share it."""

    @classmethod
    def of(
        cls,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        processes: Processes,
        config: RefreshConfig,
    ) -> "TrainStep":
        """Return the step of ``objective``, compiled and shared as configured."""
        compiled: nn.Module = objective
        if config.compile:
            compiled = torch.compile(objective, dynamic=True)  # type: ignore[assignment]
        return cls(
            objective=objective,
            optimiser=optimiser,
            processes=processes,
            config=config,
            module=processes.wrap(compiled),
        )

    def run(self, rows: NDArray[np.int64], seed: int) -> dict[str, Tensor]:
        """Train on the batch ``rows``; return the value of each term of its loss."""
        self.objective.zero_grad(set_to_none=True)
        parts = self._parts(len(rows), self.config.accumulate)
        # The first part's loss needs the counts of all: their batches are made twice.
        known = self._counts(rows, parts, seed) if len(parts) > 1 else None
        found: dict[str, Tensor] = {}
        weight = self._weight(rows)
        for part in parts:
            with self._gradients_wait(part is not parts[-1]), drawing(seed, part):
                batch = self._batch(rows, part)
                counts = known or self._added(self.objective.counts(batch))
                sums = self._sums(batch)
                # The wrapper averages over the processes what is a sum.
                loss = loss_of(sums, counts) * self.processes.count * weight
                loss.backward()  # type: ignore[no-untyped-call]
            for name, value in mean_of(sums, counts).items():
                found[name] = found.get(name, 0) + value.detach()
        self._gather_rows()
        clip(self.optimiser)
        self.optimiser.step()
        return self._added(found)

    def _gather_rows(self) -> None:
        """Add up sparse gradients, over a batch's parts and over the processes."""
        for table in large_tables(self.objective):
            table.weight.grad = self.processes.gather_rows(table.weight)

    def _weight(self, rows: NDArray[np.int64]) -> float:
        """Return the weight of the gradient of ``rows``: 1 on average."""
        counts = self.objective.target_counts
        return float(counts[rows].mean() / counts.mean())

    def _parts(self, whole: int, pieces: int) -> list[Part]:
        """Return this process's parts of a batch; with few rows some are empty."""
        rank, count = self.processes.rank, self.processes.count
        cuts = np.linspace(0, whole, count * pieces + 1).astype(int).tolist()
        mine = range(rank * pieces, (rank + 1) * pieces)
        return [Part(first=cuts[k], rows=cuts[k + 1] - cuts[k], whole=whole) for k in mine]

    def _batch(self, rows: NDArray[np.int64], part: Part) -> Any:
        longest = self.objective.lengths[rows].max(axis=0)
        return self.objective.batch(rows[part.first : part.first + part.rows], longest)

    def _counts(self, rows: NDArray[np.int64], parts: list[Part], seed: int) -> Counts:
        """Return the counts of a whole batch."""
        counts: dict[str, Tensor] = {}
        for part in parts:
            with drawing(seed, part):
                found = self.objective.counts(self._batch(rows, part))
            counts = {name: counts.get(name, 0) + count for name, count in found.items()}
        return self._added(counts)

    def _sums(self, batch: Any) -> Sums:
        device = next(self.objective.parameters()).device.type
        mixed = self.config.precision == "bf16-mixed"
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            sums: Sums = self.module(batch)
        return sums

    def _added(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``numbers`` summed over the processes."""
        if self.processes.count == 1:
            return dict(numbers)
        stacked = torch.stack([number.double() for number in numbers.values()])
        summed = self.processes.add(stacked).to(torch.float32)
        return dict(zip(numbers, summed.unbind(), strict=True))

    def _gradients_wait(self, wait: bool) -> AbstractContextManager[None]:
        """Do not average gradients over processes before the last part."""
        if wait and isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return nullcontext()
