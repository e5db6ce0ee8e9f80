"""A table whose rows are moved when they are read learns what AdamW would teach it."""

import pytest
import torch
from torch import Tensor, nn

from srp4ctr.training.loop.row_adamw import RowAdamW, moved_when_read

ROWS, WIDTH, STEPS = 300, 4, 700
RATE, DECAY = 0.01, 0.1


class Table(nn.Module):
    """Scores of the rows that a batch reads."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.items = nn.Embedding(ROWS, WIDTH, padding_idx=0, sparse=sparse)
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.items(rows) @ self.weight
        return scores


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return the rows of a batch and their targets: most rows are read rarely."""
    drawn = torch.Generator().manual_seed(step)
    rows = torch.rand(8, generator=drawn).pow(4.0).mul(ROWS - 20).long()
    return rows, torch.randn(8, generator=drawn)


def trained(sparse: bool, steps: int = STEPS) -> tuple[Table, list[float]]:
    """Return a table after ``steps`` steps at a falling rate, and the loss of each."""
    table, losses = Table(sparse), []
    kind = RowAdamW if sparse else torch.optim.AdamW
    optimiser = kind(table.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * (1.0 - step / STEPS)
        losses.append(one_step(table, optimiser, step))
    if isinstance(optimiser, RowAdamW):
        optimiser.settle()
    return table, losses


def one_step(table: Table, optimiser: torch.optim.Optimizer, step: int) -> float:
    """Train on the batch of ``step``; return its loss."""
    rows, targets = batch(step)
    table.zero_grad(set_to_none=True)
    if isinstance(optimiser, RowAdamW):
        with moved_when_read(table, optimiser):
            scores = table(rows)
    else:
        scores = table(rows)
    loss = (scores - targets).square().mean()
    loss.backward()
    if (gradient := table.items.weight.grad) is not None and gradient.is_sparse:
        table.items.weight.grad = gradient.coalesce()
    optimiser.step()
    return float(loss.detach())


@pytest.mark.parametrize("steps", [1, 3, 30, STEPS])
def test_rows_end_where_adamw_takes_them(steps: int) -> None:
    found, losses = trained(sparse=True, steps=steps)
    wanted, expected = trained(sparse=False, steps=steps)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    moved = (wanted.items.weight - Table(sparse=False).items.weight).detach()
    assert float(moved.abs().max()) > RATE * min(steps, 10) / 2  # there is what to compare
    torch.testing.assert_close(found.items.weight, wanted.items.weight, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.weight, wanted.weight, rtol=0, atol=2e-5)


def test_torch_s_sparse_adam_leaves_rare_rows_behind() -> None:
    """The reason for an optimiser of our own: rows that were read once."""
    once, wanted, start = Table(sparse=True), Table(sparse=False), Table(sparse=False)
    lazy = torch.optim.SparseAdam([once.items.weight], lr=RATE)
    exact = torch.optim.AdamW([wanted.items.weight], lr=RATE, weight_decay=0.0)
    row = torch.tensor([7])
    for step in range(60):
        for table, optimiser in ((once, lazy), (wanted, exact)):
            table.zero_grad(set_to_none=True)
            table(row if step == 0 else torch.tensor([9])).sum().backward()
            optimiser.step()  # type: ignore[no-untyped-call]

    def moved(table: Table) -> float:
        return float((table.items.weight - start.items.weight)[7].abs().detach().mean())

    assert moved(once) < 0.25 * moved(wanted)


def test_an_interrupted_table_continues_to_the_same_bits() -> None:
    whole, _ = trained(sparse=True)
    table, _ = trained_in_two(STEPS // 3)
    assert torch.equal(table.items.weight, whole.items.weight)


def trained_in_two(first: int) -> tuple[Table, RowAdamW]:
    """Return a table whose optimiser's state went through a checkpoint."""
    table = Table(sparse=True)
    optimiser = RowAdamW(table.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(STEPS):
        if step == first:
            state = optimiser.state_dict()["state"]
            kept = {k: {n: t.clone() for n, t in v.items()} for k, v in state.items()}
            optimiser = RowAdamW(table.parameters(), lr=RATE, weight_decay=DECAY)
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": kept, "param_groups": groups})
        optimiser.param_groups[0]["lr"] = RATE * (1.0 - step / STEPS)
        one_step(table, optimiser, step)
    optimiser.settle()
    return table, optimiser


def test_a_row_that_no_batch_reads_only_decays() -> None:
    table, _ = trained(sparse=True)
    exact, _ = trained(sparse=False)
    read = torch.unique(torch.cat([batch(step)[0] for step in range(STEPS)]))
    unread = torch.ones(ROWS, dtype=torch.bool).index_fill_(0, read, False)
    assert unread.any()
    torch.testing.assert_close(
        table.items.weight[unread], exact.items.weight[unread], rtol=1e-5, atol=0
    )


def test_a_frozen_table_is_read_and_not_moved() -> None:
    table = Table(sparse=True)
    before = table.items.weight.detach().clone()
    optimiser = RowAdamW([table.weight], lr=RATE)
    for step in range(3):
        one_step(table, optimiser, step)
    optimiser.settle()
    assert torch.equal(table.items.weight, before)
    assert list(optimiser.state_dict()["state"]) == [0]
