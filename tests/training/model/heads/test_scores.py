import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from srp4ctr.features.bundles.gates import SCORE_TOLERANCES
from srp4ctr.features.tensors.schema import PROBABILITY_TENSORS, RANKING_TENSORS
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.loop.train_step import loss_of
from srp4ctr.training.model.heads.click import fake_negative_weighted_loss, log_loss
from srp4ctr.training.model.heads.ranking import slate_loss
from srp4ctr.training.model.heads.scores import HEADS, Scores, counts, losses


def mean_slate_loss(logits: Tensor, clicked: Tensor, shown: Tensor) -> Tensor:
    sums = {"by_slate": slate_loss(logits, clicked, shown)}
    return loss_of(sums, counts(clicked, shown))


def scores_of(*shares: float) -> Tensor:
    return torch.tensor(shares, dtype=torch.float64).log()


def test_the_heads_are_what_is_served_and_held_to_a_tolerance() -> None:
    served = [head.tensor for head in HEADS]
    assert served == [*PROBABILITY_TENSORS, *RANKING_TENSORS]
    assert [spec.name for spec in served] == list(SCORE_TOLERANCES)


def test_a_slates_loss_is_the_clicks_share_of_the_exponentials() -> None:
    logits = scores_of(0.3, 0.1, 0.2)[None]
    clicked = torch.tensor([[0.0, 1.0, 0.0]])
    shown = torch.ones(1, 3, dtype=torch.bool)
    found = mean_slate_loss(logits, clicked, shown)
    assert float(found) == pytest.approx(-math.log(0.1 / 0.6))


def test_a_slates_clicks_are_averaged_and_so_are_slates() -> None:
    logits = scores_of(0.3, 0.1, 0.2, 0.5, 0.5, 0.1).reshape(2, 3)
    clicked = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    shown = torch.tensor([[True, True, True], [True, True, False]])
    first = -(math.log(0.3 / 0.6) + math.log(0.1 / 0.6)) / 2
    second = -math.log(0.5)
    assert float(mean_slate_loss(logits, clicked, shown)) == pytest.approx(
        (first + second) / 2
    )


def test_slates_without_a_click_give_none_and_no_slate_at_all_gives_zero() -> None:
    logits = scores_of(0.3, 0.1, 0.9, 0.4).reshape(2, 2).requires_grad_()
    shown = torch.ones(2, 2, dtype=torch.bool)
    clicked = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = mean_slate_loss(logits, clicked, shown)
    assert float(loss.detach()) == pytest.approx(-math.log(0.3 / 0.4))
    assert float(mean_slate_loss(logits.detach(), torch.zeros(2, 2), shown)) == 0.0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[1].any()


def test_padding_has_no_share_and_no_gradient() -> None:
    logits = scores_of(0.3, 0.1, 0.999).reshape(1, 3).requires_grad_()
    shown = torch.tensor([[True, True, False]])
    loss = mean_slate_loss(logits, torch.tensor([[1.0, 0.0, 1.0]]), shown)
    assert float(loss.detach()) == pytest.approx(-math.log(0.3 / 0.4))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(gradient[0, 2]) == 0.0


def test_the_weight_joins_both_losses_each_of_its_own_score() -> None:
    click = torch.tensor([[0.3, 0.1]], dtype=torch.float64).logit()
    scores = Scores(click=click, ranking=scores_of(0.3, 0.1)[None])
    clicked = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    shown = torch.ones(1, 2, dtype=torch.bool)
    plain = RefreshConfig(slate_loss_weight=0.0)
    weighted = replace(plain, slate_loss_weight=0.5)
    number = counts(clicked, shown)
    found = loss_of(losses(scores, clicked, shown, weighted), number)
    alone = log_loss(click[0], clicked[0]) / 2
    assert loss_of(losses(scores, clicked, shown, plain), number) == alone
    assert float(found - alone) == pytest.approx(-0.5 * math.log(0.75))


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
def test_fake_negatives_are_weighted_away(rate: float) -> None:
    """A rate trained on a stream of early negatives and later clicks, simulated."""
    clicked = np.random.default_rng(0).random(20_000) < rate
    seen = torch.from_numpy(clicked.astype(np.float64))
    true_rate = float(seen.mean())

    def trained_rate(weighted: bool) -> float:
        logit = torch.full((), -1.0, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([logit], lr=0.1)
        for _ in range(400):
            if weighted:
                loss = fake_negative_weighted_loss(logit.expand(len(seen)), seen)
            else:  # the stream as it is: every impression, and every click in addition
                stream = torch.cat([torch.zeros_like(seen), seen[seen > 0]])
                loss = log_loss(logit.expand(len(stream)), stream)
            optimiser.zero_grad()
            (loss / len(seen)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return float(torch.sigmoid(logit.detach()))

    assert trained_rate(weighted=True) == pytest.approx(true_rate, abs=1e-3)
    biased = true_rate / (1 + true_rate)
    assert trained_rate(weighted=False) == pytest.approx(biased, abs=1e-3)
