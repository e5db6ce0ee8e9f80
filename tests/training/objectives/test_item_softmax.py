import torch
from torch import Tensor

from srp4ctr.training.objectives.pretraining import (
    Proposal,
    full_softmax,
    sampled_softmax,
)


def a_case(items: int, positions: int, width: int = 8) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    states, table = torch.randn(positions, width), torch.randn(items, width) * 0.5
    bias = torch.randn(items) * 0.2
    return states, torch.randint(0, items, (positions,)), table, bias


def test_many_samples_give_the_full_softmax_and_its_gradient() -> None:
    states, rows, table, bias = a_case(items=30, positions=12)
    table.requires_grad_()
    counts = torch.arange(30)  # the first is hardly ever drawn
    (whole,) = torch.autograd.grad(full_softmax(states, rows, table, bias).mean(), table)
    proposal = Proposal(counts, draws=200_000)
    sampled = sampled_softmax(states, rows, table.__getitem__, bias, proposal)
    (estimate,) = torch.autograd.grad(sampled.mean(), table)
    expected = full_softmax(states, rows, table, bias)
    torch.testing.assert_close(sampled, expected, atol=0.02, rtol=0.0)
    torch.testing.assert_close(estimate, whole, atol=0.01, rtol=0.0)


def test_few_samples_are_right_in_expectation() -> None:
    states, rows, table, bias = a_case(items=30, positions=12)
    proposal = Proposal(torch.arange(30), draws=20)
    estimates = torch.stack(
        [
            sampled_softmax(states, rows, table.__getitem__, bias, proposal)
            for _ in range(4000)
        ]
    )
    # What the estimate gets right is the softmax's denominator.
    own = (states * table[rows]).sum(-1) + bias[rows]
    mean = (estimates + own).exp().mean(0).log() - own
    expected = full_softmax(states, rows, table, bias)
    torch.testing.assert_close(mean, expected, atol=0.1, rtol=0.0)


def test_the_hidden_item_is_no_counterexample_to_itself() -> None:
    states, _, table, bias = a_case(items=4, positions=3)
    only = Proposal(torch.tensor([0, 0, 10**12, 0]), draws=50)  # draws row 2 alone
    loss = sampled_softmax(states, torch.tensor([2, 2, 2]), table.__getitem__, bias, only)
    assert loss.abs().max() < 1e-6


def test_rows_are_drawn_as_often_as_they_occur() -> None:
    torch.manual_seed(0)
    proposal = Proposal(torch.tensor([0, 99, 299, 0]), draws=100_000)
    shares = torch.bincount(proposal.draw(), minlength=4) / 100_000
    expected = torch.tensor([1, 100, 300, 1]) / 402
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0.0)
    torch.testing.assert_close(proposal.log_expected.exp(), expected * 100_000)
