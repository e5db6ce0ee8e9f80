"""AdamW whose time is that of a batch's rows: gradients of a table's rows → new weights.

In: a model whose large tables have sparse gradients (``nn.Embedding(sparse=True)``).
Out: the weights that AdamW gives. AdamW moves every row in every step, by its momentum and
its weight decay, whether a batch has read it or not: with a million items a step took seven
times as long as with 50,000. How an unread row moves is known beforehand, and it is moved
when it is read again. torch's own ``SparseAdam`` leaves these movements out: a row that is
read once moves less than a quarter as far.

Shapes: I rows of a table, D its width, R rows of a batch, each once, T steps done.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from srp4ctr.training.model.dropout import untraced

_TAIL_STEPS = 200  # after as many, what is left of a momentum is 1e-9 of it
_ROWS_AT_ONCE = 65_536
ROW_STEPS, TAILS, DECAYS = "row_steps", "tails", "decays"


class RowAdamW(torch.optim.AdamW):
    """AdamW; the rows of a table with sparse gradients are moved when they are read.

    A row with momentum m and squares v of step s, which has had no gradient since, has
    moved by step t by (Kingma & Ba, Adam, ICLR 2015, summed over the steps between)::

        -m / (sqrt(v) + eps) * sum_{j = s + 1 … t} rate_j correction_j ratio^(j - s)

    with ratio = beta1 / sqrt(beta2), and each addend decayed as weights are since. The sum
    depends on s and t only: ``tails`` has it for each s. The weights differ from AdamW's by
    rounding, and where eps outweighs sqrt(v).
    """

    @untraced
    @torch.no_grad()
    def read(self, table: Tensor, rows: Tensor) -> None:
        """Move the ``rows`` (any shape, int64) of ``table`` (I, D) to the present step."""
        if ROW_STEPS in self.state.get(table, {}):
            self._move(table, torch.unique(rows))

    @torch.no_grad()
    def settle(self) -> None:
        """Move all rows of all tables to the present step, as AdamW has them."""
        for table in [each for each, state in self.state.items() if ROW_STEPS in state]:
            for rows in torch.split(torch.arange(len(table)), _ROWS_AT_ONCE):
                self._move(table, rows.to(table.device))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the weights by their gradients; of sparse ones, the rows that have some."""
        sparse = [
            (table, table.grad, group)
            for group in self.param_groups
            for table in group["params"]
            if table.grad is not None and table.grad.is_sparse
        ]
        for table, _, _ in sparse:
            table.grad = None  # torch's AdamW refuses it
        result = super().step(closure)
        for table, gradient, group in sparse:
            table.grad = gradient
            self._step_rows(table, group)
        return result

    def _step_rows(self, table: Tensor, group: dict[str, Any]) -> None:
        """Move the rows that have a gradient, which is coalesced, by one step."""
        assert table.grad is not None
        state, gradient = self.state[table], table.grad
        if not state:
            state.update(_new_state(table))
        rows, values = gradient.indices()[0], gradient.values()
        self._move(table, rows)
        (beta1, beta2), rate = group["betas"], float(group["lr"])
        state["step"] += 1
        step = int(state["step"])
        corrected = rate * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
        _lengthen(state, corrected, beta1 / math.sqrt(beta2), rate * group["weight_decay"])
        momentum = state["exp_avg"][rows].lerp_(values, 1.0 - beta1)
        squares = state["exp_avg_sq"][rows].mul_(beta2)
        squares.addcmul_(values, values, value=1.0 - beta2)
        eps = group["eps"] * math.sqrt(1.0 - beta2**step)
        moved = table[rows].mul_(1.0 - rate * group["weight_decay"])
        moved.addcdiv_(momentum, squares.sqrt().add_(eps), value=-corrected)
        self._write(table, rows, (moved, momentum, squares))

    def _move(self, table: Tensor, rows: Tensor) -> None:
        """Move ``rows`` (R,), each once, to the present step: none has a gradient since."""
        state, group = self.state[table], self._group_of(table)
        (beta1, beta2), now = group["betas"], int(state["step"])
        since = state[ROW_STEPS][rows].long()  # (R,)
        rows, since = rows[since < now], since[since < now]
        if not len(rows):
            return
        momentum, squares = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        correction = (1.0 - beta2 ** since.clamp(min=1).double()).sqrt()
        eps = (group["eps"] * correction).to(squares.dtype)[:, None]
        kept = (state[DECAYS][now] - state[DECAYS][since]).exp()[:, None]
        path = state[TAILS][since][:, None] * momentum / (squares.sqrt() + eps)
        moved = table[rows] * kept - path
        steps = (now - since).double()[:, None]
        momentum = momentum * (beta1**steps).to(momentum.dtype)
        squares = squares * (beta2**steps).to(squares.dtype)
        self._write(table, rows, (moved, momentum, squares))

    def _write(
        self, table: Tensor, rows: Tensor, values: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        """Set ``rows`` (R,): weights, momentum and squares (R, D) of the present step."""
        state = self.state[table]
        for target, each in zip(
            (table, state["exp_avg"], state["exp_avg_sq"]), values, strict=True
        ):
            target.index_copy_(0, rows, each)
        state[ROW_STEPS].index_fill_(0, rows, float(state["step"]))

    def _group_of(self, table: Tensor) -> Any:
        """Return the parameter group of ``table``."""
        for group in self.param_groups:
            if any(param is table for param in group["params"]):
                return group
        raise KeyError("a table of another optimiser")


def large_tables(module: nn.Module) -> Iterator[nn.Embedding]:
    """Yield the tables in ``module`` whose gradients are sparse, each once."""
    for each in module.modules():
        if isinstance(each, nn.Embedding) and each.sparse:
            yield each


@contextmanager
def moved_when_read(module: nn.Module, optimiser: RowAdamW) -> Iterator[None]:
    """Let ``optimiser`` move the rows that ``module`` looks up, while the block runs."""

    def read(table: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(table, nn.Embedding)
        optimiser.read(table.weight, given[0])

    hooks = [table.register_forward_pre_hook(read) for table in large_tables(module)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _new_state(table: Tensor) -> dict[str, Tensor]:
    """Return AdamW's state of a table, and which step each row is of.

    Steps are float32: torch reads an optimiser's state in its parameter's type.
    """
    return {
        "step": torch.tensor(0.0),
        "exp_avg": torch.zeros_like(table),
        "exp_avg_sq": torch.zeros_like(table),
        ROW_STEPS: table.new_zeros(len(table)),
        TAILS: table.new_zeros(1),
        DECAYS: table.new_zeros(1),
    }


def _lengthen(state: Any, corrected: float, ratio: float, decay: float) -> None:
    """Add a step to the paths of rows that are not read in it."""
    tails = nn.functional.pad(state[TAILS], (0, 1)) * (1.0 - decay)
    past = tails[-_TAIL_STEPS - 1 : -1]  # (at most 200,): the newest step last
    ages = torch.arange(len(past), 0, -1, device=past.device)
    past += corrected * ratio**ages
    state[TAILS] = tails
    total = state[DECAYS][-1:] + math.log1p(-decay)
    state[DECAYS] = torch.cat([state[DECAYS], total])
