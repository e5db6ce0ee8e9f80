"""Click models of your own, given SRP4CTR's vectors: LightGBM and DCNv2.

In: slates whose tensors have, besides the schema's, what serving gave to each request. Out:
a scorer of slates. Both see the columns that the baselines see.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.models import trees as lightgbm_trees
from benchmarks.models.baseline import Baseline
from benchmarks.quality.clicks.click_examples import Part
from srp4ctr.features.tensors.schema import CANDIDATE_EMBEDDINGS, USER_EMBEDDINGS
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.click_model import Tensors
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.objectives.finetuning import finetune, serving_logits

QUERIES, STATES = USER_EMBEDDINGS[0].name, CANDIDATE_EMBEDDINGS[0].name
LOGIT = "logit"  # of the click probability, (R, N)
Scorer = Callable[[Part], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InformedColumns(lightgbm_trees.Columns):
    """LightGBM's own columns, and the numbers of what is given."""

    given: Sequence[str]

    def table(self, part: Part) -> pd.DataFrame:
        """Return a row per shown candidate."""
        shown = part.slates.shown
        requests = np.nonzero(shown)[0]
        columns = [lightgbm_trees.Columns.table(self, part)]
        for name in self.given:
            array = part.slates.tensors[name]
            rows = array[requests] if name == QUERIES else array[shown]
            columns.append(pd.DataFrame(rows.reshape(len(requests), -1).astype(np.float32)))
        table = pd.concat(columns, axis=1)
        return table.set_axis([str(n) for n in range(table.shape[1])], axis=1)


def trees(learn: Part, stop: Part, given: Sequence[str], config: RefreshConfig) -> Scorer:
    """Return LightGBM, stopped by the log loss of ``stop``."""
    contexts = lightgbm_trees.columns_of(learn).contexts
    columns = InformedColumns(contexts=contexts, given=given)
    booster = lightgbm_trees.learn(learn, stop, columns, {"seed": config.seed})
    return lambda part: lightgbm_trees.logits(booster, columns, part)


class InformedDCN(Baseline):
    """DCNv2 that crosses what is given with all else that it knows of a candidate."""

    def __init__(
        self, config: ModelConfig, sizes: TableSizes, given: Sequence[str]
    ) -> None:
        widths = {
            QUERIES: config.num_queries * config.width,
            STATES: config.width,
            LOGIT: 1,
        }
        super().__init__(config, sizes, sum(widths[name] for name in given))
        self.given = given

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return what is given of each candidate: (B, N, …)."""
        count = tensors["candidate_item_rows"].shape[1]
        readings = {
            QUERIES: lambda array: array.flatten(1)[:, None].expand(-1, count, -1),
            STATES: lambda array: array[:, :count],
            LOGIT: lambda array: array[:, :count, None],
        }
        return [readings[name](tensors[name]) for name in self.given]


def network(
    sizes: TableSizes, learn: Part, stop: Part, given: Sequence[str], config: RefreshConfig
) -> Scorer:
    """Return DCNv2 after the recipe's epochs; ``stop`` only calibrates it."""
    del stop
    torch.manual_seed(config.seed)
    model = InformedDCN(config.model, sizes, given)
    finetune(model, learn.slates, config, FitOptions())
    return lambda part: serving_logits(model, part.slates).click
