"""The order's head: a score that orders a request's candidates, ln p + a correction.

Without a correction the listwise loss is best at the true probabilities, if a slate has one
click (ListCE of Bai et al., Regression Compatible Listwise Objectives, CIKM 2023): there is
little to correct. The loss does not train the logits themselves, so that it costs them no
calibration; what lies below is trained by both losses. Shapes are those of ``head.py``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.features.tensors.schema import RANKING_TENSORS
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.heads.head import Head

_HIDDEN = -1e9  # the score of a slot that was not shown: its share underflows to 0


class RankingHead(Head):
    """A linear correction of the logarithm of the click's probability."""

    tensor = RANKING_TENSORS[0]
    term = "by_slate"

    def __init__(self, width: int) -> None:
        super().__init__()
        # Zeros: ranks by the click at first.
        self.weight = nn.Parameter(torch.zeros(1, width))

    def forward(self, last: Tensor, positions: Tensor) -> Tensor:
        """Return the correction; the position is not looked at."""
        del positions
        return functional.linear(last, self.weight).squeeze(-1)

    def score(self, number: Tensor, click_logit: Tensor) -> Tensor:
        """Return ln p + the correction."""
        return functional.logsigmoid(click_logit.detach()) + number

    def column(self) -> tuple[Tensor, Tensor]:
        """Return the correction's weights, and no bias."""
        return self.weight[0], torch.zeros(())

    def served(self, number: Tensor, click_logit: Tensor) -> Tensor:
        """Return the same as ``score``."""
        # As the logarithm of a sigmoid, ONNX has no rare click's ln p: -inf below -18.
        return number - functional.softplus(-click_logit)

    @classmethod
    def loss(
        cls, score: Tensor, clicked: Tensor, shown: Tensor, config: RefreshConfig
    ) -> Tensor:
        """Return the weighted listwise loss: what was clicked before what was not."""
        return config.slate_loss_weight * slate_loss(score, clicked, shown)

    @classmethod
    def count(cls, clicked: Tensor, shown: Tensor) -> Tensor:
        """Return the number of slates with a click."""
        return ((clicked * shown).sum(-1) > 0).sum()


def slate_loss(ranking: Tensor, clicked: Tensor, shown: Tensor) -> Tensor:
    """Return the cross entropy of the slates' clicks among what was shown, (B, N) each.

    -mean over clicks of ln(exp(s_i) / sum exp(s_j)), summed over the slates with a click:
    ListNet's top-one probability (Cao et al., Learning to Rank: From Pairwise Approach to
    Listwise Approach, ICML 2007).
    """
    shares = torch.log_softmax(ranking.masked_fill(~shown, _HIDDEN), dim=-1)  # (B, N)
    chosen = clicked * shown
    clicks = chosen.sum(-1)  # (B,)
    each = -(shares * chosen).sum(-1) / clicks.clamp(min=1.0)
    return each.sum()
