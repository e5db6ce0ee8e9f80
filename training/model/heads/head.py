"""What a head is: one score of each candidate, read off a layer that all heads share.

A head stands in one file: its block in torch, its loss, its form in the served graph and
its tensor there. ``scores.py`` lists the heads.

Shapes: B requests, N candidates, Z the last layer's width.
"""

import abc
from typing import ClassVar

from torch import Tensor, nn

from srp4ctr.features.tensors.schema import TensorSpec
from srp4ctr.training.config import RefreshConfig


class Head(nn.Module, abc.ABC):
    """One score of each candidate."""

    tensor: ClassVar[TensorSpec]
    """What the served graph calls it."""
    term: ClassVar[str]
    """What the loss and its progress call it."""

    @abc.abstractmethod
    def forward(self, last: Tensor, positions: Tensor) -> Tensor:
        """Return a number (B, N) of the ``last`` layer (B, N, Z), shown at ``positions``.

        The click's is its logit, to which the model adds what it knows besides.
        """

    @abc.abstractmethod
    def score(self, number: Tensor, click_logit: Tensor) -> Tensor:
        """Return what is trained, (B, N), of ``number`` and the click's logit."""

    def answer(self, score: Tensor) -> Tensor:
        """Return what callers get for a ``score`` that was trained: here the same."""
        return score

    @abc.abstractmethod
    def column(self) -> tuple[Tensor, Tensor]:
        """Return weights (Z,) and a bias () that make the number at the top position."""

    @abc.abstractmethod
    def served(self, number: Tensor, click_logit: Tensor) -> Tensor:
        """Return ``answer`` of ``score`` in operations that ONNX computes exactly."""

    @classmethod
    @abc.abstractmethod
    def loss(
        cls, score: Tensor, clicked: Tensor, shown: Tensor, config: RefreshConfig
    ) -> Tensor:
        """Return the summed loss of a ``score`` (B, N) of what was ``shown``."""

    @classmethod
    @abc.abstractmethod
    def count(cls, clicked: Tensor, shown: Tensor) -> Tensor:
        """Return the number of targets that ``loss`` sums over."""
