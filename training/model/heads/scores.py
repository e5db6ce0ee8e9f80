"""The heads by name: a new one has a file here, a field of ``Scores`` and its entry.

One score becomes a probability, another one orders a request's candidates: no single score
does both best. The native step has a line for each in ``output_names.h``.
"""

from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.heads.click import ClickHead
from srp4ctr.training.model.heads.head import Head
from srp4ctr.training.model.heads.ranking import RankingHead

T = TypeVar("T")


class Scores(NamedTuple, Generic[T]):
    """What a click model says of each candidate, (B, N) each."""

    click: T
    """The logit, or the probability, of a click."""
    ranking: T
    """Orders the candidates of a request."""


HEADS: Scores[type[Head]] = Scores(click=ClickHead, ranking=RankingHead)


def losses(
    scores: Scores[Tensor], clicked: Tensor, shown: Tensor, config: RefreshConfig
) -> dict[str, Tensor]:
    """Return the summed loss of each head, by its term; labels and ``shown`` are (B, N)."""
    return {
        head.term: head.loss(score, clicked, shown, config)
        for head, score in zip(HEADS, scores, strict=True)
    }


def counts(clicked: Tensor, shown: Tensor) -> dict[str, Tensor]:
    """Return the numbers of targets of ``losses``, by term."""
    return {head.term: head.count(clicked, shown) for head in HEADS}
