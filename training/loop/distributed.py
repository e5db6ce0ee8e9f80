"""Data parallelism: processes that ``torchrun`` started, each with a part of every batch.

In: torchrun's variables. Out: this process's rank among its peers, and what they do
together; in a single process every call is the identity. On a machine shared with serving
the processes have a lower priority.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as torch_distributed
from torch.nn.parallel import DistributedDataParallel

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.loop.row_adamw import large_tables

# While the first process reads the log or exports, the others wait.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process's ``rank`` among ``count``; only the first writes files."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return ``module`` with gradients that are averaged over the processes."""
        if self.count == 1:
            return module
        # NCCL adds up no sparse gradients: ``gather_rows`` does.
        tables = {id(table.weight): table.weight for table in large_tables(module)}
        for weight in tables.values():
            torch_distributed.broadcast(weight.data, src=0)
        names = [name for name, each in module.named_parameters() if id(each) in tables]
        ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(module, names)  # type: ignore[no-untyped-call]
        # Stages leave parameters out: frozen ones, heads that a batch does not use.
        return DistributedDataParallel(
            module, broadcast_buffers=False, find_unused_parameters=True
        )

    def gather_rows(self, table: Tensor) -> Tensor | None:
        """Return the sparse gradient of ``table`` (I, D), coalesced and averaged.

        None where there is no other process and this one has none.
        """
        if self.count == 1:
            return None if table.grad is None else table.grad.coalesce()
        rows = torch.zeros(0, dtype=torch.int64, device=table.device)  # (R,)
        values = table.new_zeros(0, table.shape[1])  # (R, D)
        if table.grad is not None:
            gradient = table.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        places = self._joined(rows), self._joined(values)
        summed = torch.sparse_coo_tensor(places[0][None], places[1], table.shape)
        return (summed / self.count).coalesce()

    def _joined(self, tensor: Tensor) -> Tensor:
        """Return each process's ``tensor``, whose lengths differ, one after the other."""
        own = torch.zeros(self.count, dtype=torch.int64, device=tensor.device)
        own[self.rank] = len(tensor)
        lengths = self.add(own).tolist()
        padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        found = [torch.empty_like(padded) for _ in lengths]
        torch_distributed.all_gather(found, padded)
        return torch.cat([each[:n] for each, n in zip(found, lengths, strict=True)])

    def add(self, tensor: Tensor) -> Tensor:
        """Return the sum of ``tensor`` over the processes, the same in each."""
        if self.count == 1:
            return tensor
        summed = tensor.clone()
        torch_distributed.all_reduce(summed)
        return summed

    def broadcast(self, value: float) -> float:
        """Return the first process's ``value``: clocks differ, decisions must not."""
        if self.count == 1:
            return value
        return float(self.add(torch.tensor(value if self.is_first else 0.0).double()))

    def wait(self) -> None:
        """Wait for every process (a barrier)."""
        self.broadcast(0.0)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun started; a single process without torchrun."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch_distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(rank=torch_distributed.get_rank(), count=count)
    finally:
        torch_distributed.destroy_process_group()


def device_of(name: str) -> torch.device:
    """Return the device ``name``; ``auto`` takes this process's GPU where there is one."""
    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Let torch compute on ``number`` threads while the block runs; 0: its own choice."""
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def yield_to_serving(config: RefreshConfig) -> None:
    """Lower this process's priority and cap its part of the GPU; once per process.

    Beyond the cap torch raises ``OutOfMemoryError``; serving keeps its memory.
    """
    if config.niceness > 0:
        os.nice(config.niceness)
    is_capped = config.max_gpu_memory_share < 1.0 and config.device != "cpu"
    if is_capped and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(config.max_gpu_memory_share)
