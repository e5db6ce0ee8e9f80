"""Says how long and how fast variants train: chosen by validation, not by the test.

One recipe for every data set of this protocol: users have few behaviours each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from srp4ctr.training.config import ModelConfig, RefreshConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how fast the variants learn."""

    length: int = 50
    """L, of S3-Rec's protocol."""
    pretraining: RefreshConfig
    clicks: RefreshConfig
    rounds: int = 2
    """How often each behaviour is a slate of the click head, each time with others."""
    negatives: int = 16
    label_share: float = 1.0
    """The share of the behaviours that are slates, at random; pre-training reads all."""
    sasrec_epochs: int = 30
    sasrec_rate: float = 1e-3
    sasrec_dropout: float = 0.5
    sasrec_batch: int = 256
    sasrec_drawn: int = 500
    """Items that a batch's right ones compete with."""

    def of(self, variant: str) -> Mapping[str, Any]:
        """Return what of it ``variant`` reads: its result does not depend on the rest."""
        is_sasrec = variant == "sasrec"
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name == "length" or field.name.startswith("sasrec") == is_sasrec
        }

    def with_threads(self, threads: int) -> "Recipe":
        """Return the recipe that computes on ``threads`` threads."""
        return replace(
            self,
            pretraining=replace(self.pretraining, threads=threads),
            clicks=replace(self.clicks, threads=threads),
        )

    def shorter(self, share: float) -> "Recipe":
        """Return the recipe with ``share`` of the epochs, at least one each."""
        before, after = self.pretraining, self.clicks
        return replace(
            self,
            pretraining=replace(
                before, pretrain_epochs=_part(before.pretrain_epochs, share)
            ),
            clicks=replace(after, finetune_epochs=_part(after.finetune_epochs, share)),
            sasrec_epochs=_part(self.sasrec_epochs, share),
        )


def _part(epochs: int, share: float) -> int:
    return max(round(epochs * share), 1)


MODEL = ModelConfig(dropout=0.3)
RECIPE = Recipe(
    pretraining=RefreshConfig(
        model=MODEL,
        pretrain_epochs=40,
        pretrain_learning_rate=2e-3,
        batch_users=128,
        bucket_by_length=True,
        last_masked_share=1.0,
        prefix_share=0.7,
        id_dropout=0.0,
        sampled_items=500,
    ),
    clicks=RefreshConfig(
        model=MODEL,
        finetune_epochs=1,
        batch_requests=256,
        bucket_by_length=True,
        slate_loss_weight=1.0,
        id_dropout=0.3,
    ),
)
