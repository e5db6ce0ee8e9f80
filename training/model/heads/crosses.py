"""What all heads share: crosses of the user's side with each candidate's, and an MLP.

``Crosses`` is trained; ``FoldedCrosses`` is what serving computes of it. DCNv2's crosses
are x0 * (1 + the sum over layers of W x + b): what a row of both sides is multiplied by is
each side's part once, the user's for all its candidates.

Shapes: B requests, N candidates, W user side's width, V candidate side's width, H the width
of the heads' layers, of which the crosses have two; K heads.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.dropout import Dropout
from srp4ctr.training.model.embeddings import Spans
from srp4ctr.training.model.heads.click import ClickHead
from srp4ctr.training.model.heads.head import Head
from srp4ctr.training.model.heads.scores import HEADS, Scores

NUM_CROSS_LAYERS = 2


class CrossLayer(nn.Module):
    """DCNv2: x' = x0 * (W x + b) + x, with W of low rank."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, rank, bias=False)
        self.widen = nn.Linear(rank, width)
        nn.init.zeros_(self.widen.weight)  # starts as the identity

    def forward(self, first: Tensor, current: Tensor) -> Tensor:
        """Return the next layer's input, of the same shape as both."""
        crossed: Tensor = first * self.widen(self.narrow(current)) + current
        return crossed


class Crosses(nn.Module):
    """DCNv2 crosses and an MLP over [user side ; candidate side] of each candidate.

    The user side is projected once per request, and shared by its candidates.
    """

    def __init__(self, config: ModelConfig, user_width: int, candidate_width: int) -> None:
        super().__init__()
        width = config.head_width
        self.user = nn.Linear(user_width, width)
        self.candidate = nn.Linear(candidate_width, width)
        self.crosses = nn.ModuleList(
            CrossLayer(2 * width, width // 2) for _ in range(NUM_CROSS_LAYERS)
        )
        self.hidden = nn.Linear(2 * width, width)
        self.deeper = nn.Linear(width, width // 2)
        self.dropout = Dropout(config.dropout)
        last = 2 * width + width // 2
        made = zip(HEADS._fields, (head(last) for head in HEADS), strict=True)
        self.scores = nn.ModuleDict(dict(made))

    @property
    def click(self) -> ClickHead:
        """The head whose logit the model completes, and calibration scales."""
        head = self.scores["click"]
        assert isinstance(head, ClickHead)
        return head

    def forward(
        self, user: Tensor, candidates: Tensor, positions: Tensor
    ) -> Scores[Tensor]:
        """Return each head's number (B, N) of ``user`` (B, W), ``candidates`` (B, N, V)."""
        sides = self._sides(user, candidates)  # (B, N, 2 H)
        crossed = sides
        for layer in self.crosses:
            crossed = layer(sides, crossed)
        hidden = self.dropout(functional.gelu(self.hidden(sides)))
        deeper = functional.gelu(self.deeper(hidden))
        last = torch.cat([crossed, deeper], dim=-1)
        return Scores(*(head(last, positions) for head in self._heads()))

    def trained(self, numbers: Scores[Tensor], click_logit: Tensor) -> Scores[Tensor]:
        """Return what is trained of ``numbers``.

        ``click_logit`` (B, N) is the click's number and what the model adds to it.
        """
        every = zip(self._heads(), numbers, strict=True)
        return Scores(*(head.score(number, click_logit) for head, number in every))

    def answers(self, scores: Scores[Tensor]) -> Scores[Tensor]:
        """Return what callers get of the ``scores``."""
        every = zip(self._heads(), scores, strict=True)
        return Scores(*(head.answer(score) for head, score in every))

    def _heads(self) -> list[Head]:
        return [score for score in self.scores.values() if isinstance(score, Head)]

    def _sides(self, user: Tensor, candidates: Tensor) -> Tensor:
        ours = self.user(user)[:, None, :].expand(-1, candidates.shape[1], -1)
        theirs = self.candidate(candidates)
        sides: Tensor = self.dropout(torch.cat([ours, theirs], dim=-1))
        return sides


class FoldedCrosses(nn.Module):
    """The crosses and heads of a trained model, at the top position."""

    def __init__(
        self,
        trained: Crosses,
        parts: Mapping[str, Tensor],
        spans: Spans,
        match_weight: Tensor,
    ) -> None:
        """``parts`` (any, H) are those of the projection of candidates, by name."""
        super().__init__()
        self.states, self.matched = parts["states"], parts["matched"]
        self.spans, self.bias = spans.folded(parts["spans"], trained.candidate.bias)
        self.layers = [cross for cross in trained.crosses if isinstance(cross, CrossLayer)]
        narrow, hidden = self.layers[0].narrow.weight.t(), trained.hidden
        first = torch.cat([narrow, hidden.weight.t()], dim=1)  # (2 H, any)
        self.widths = [first.shape[1] - hidden.out_features, hidden.out_features]
        self.of_user, self.of_items = first.chunk(2)
        pad = torch.zeros(self.widths[0])
        self.first_bias = torch.cat([pad, hidden.bias])
        self.deeper = trained.deeper
        self.heads = [score for score in trained.scores.values() if isinstance(score, Head)]
        weights, biases = zip(*(head.column() for head in self.heads), strict=True)
        out = torch.stack(weights).t()  # (Z, K)
        self.crossed, self.deep = out[: len(first)], out[len(first) :]
        self.out_bias = torch.stack(biases)
        others = torch.zeros(len(self.heads) - 1)
        self.match = torch.cat([match_weight.reshape(1), others])[None]  # the click's

    def of_candidates(self, states: Tensor, matched: Tensor, spans: Tensor) -> Tensor:
        """Return the candidates' side, but for items and products: (B T, H)."""
        theirs = torch.addmm(self.bias, spans, self.spans)
        theirs = torch.addmm(theirs, states, self.states)
        return torch.addmm(theirs, matched.reshape(-1, 1), self.matched)

    def forward(self, user: Tensor, theirs: Tensor, matched: Tensor, batch: int) -> Tensor:
        """Return the heads' numbers (B, T, K), before the request's bias of the click.

        ``user`` is (B, H), ``theirs`` (B T, H).
        """
        of_user = torch.addmm(self.first_bias, user, self.of_user)[:, None]
        first = (theirs @ self.of_items).reshape(batch, -1, sum(self.widths)) + of_user
        theirs = theirs.reshape(batch, -1, len(self.of_items))
        ours = user[:, None].expand_as(theirs)
        sides = torch.cat([ours, theirs], dim=-1).reshape(-1, 2 * len(self.of_items))
        first = first.reshape(-1, sum(self.widths))
        narrow, hidden = torch.split(first, self.widths, dim=1)
        widen = self.layers[0].widen
        factors = torch.addmm(widen.bias + 1.0, narrow, widen.weight.t())
        for layer in self.layers[1:]:
            narrow = (sides * factors) @ layer.narrow.weight.t()
            factors = torch.addmm(
                factors + layer.widen.bias, narrow, layer.widen.weight.t()
            )
        crossed = sides * factors
        deeper = functional.gelu(self.deeper(functional.gelu(hidden)))
        numbers = torch.addmm(self.out_bias, crossed, self.crossed)
        numbers = torch.addmm(numbers, deeper, self.deep)
        numbers = torch.addmm(numbers, matched.reshape(-1, 1), self.match)
        return numbers.reshape(batch, -1, len(self.heads))

    def tensors(self, numbers: Tensor, click_logit: Tensor) -> dict[str, Tensor]:
        """Return each head's tensor (B, N) by name, of ``numbers`` (B, N, K)."""
        return {
            head.tensor.name: head.served(numbers[..., place], click_logit)
            for place, head in enumerate(self.heads)
        }
