"""Claim: the time of a training step does not grow with the catalogue.

Windows and slates of random items train the default model, some steps of each stage at
each size of the catalogue, in turns. A row for each stage: the median time of a step at
each size, and the ratio of the greatest size to the first.

    make bench NAME=catalogue_size ARGS="--items 50000 1000000"
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import parser_of, say
from srp4ctr.features.tensors.schema import Field
from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import EXAMPLE_NAMES, HISTORY_NAMES, Slates, Windows
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.export.onnx_export import sample
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import finetune
from srp4ctr.training.objectives.pretraining import pretrain

LENGTH, CANDIDATES = 50, 10
FIELDS = (Field(name="brand", kind="categorical", size=1000),)
RECIPE = RefreshConfig(
    pretrain_epochs=1,
    finetune_epochs=1,
    batch_requests=64,
    id_dropout=0.3,
    sampled_items=8192,  # as of a large catalogue, so that only the tables differ
)
WARM_UP_STEPS = 3
Row = dict[str, Any]


class StepTimer:
    """A listener to the progress of a stage: how long each of its steps took."""

    def __init__(self) -> None:
        self._began: list[float] = []

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """Note that the step after ``done`` begins."""
        self._began.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the times of the steps after the first few."""
        return [b - a for a, b in itertools.pairwise(self._began)][WARM_UP_STEPS:-1]


class Catalogue:
    """A model with ``items`` item rows, and random examples of them."""

    def __init__(self, items: int, steps: int) -> None:
        torch.manual_seed(0)
        sizes = TableSizes(item_rows=items, item_fields=FIELDS, length=LENGTH)
        self.model = SRP4CTR(RECIPE.model, sizes)
        requests = 64 * (steps + WARM_UP_STEPS)
        tensors = sample(
            sizes_of(RECIPE.model, sizes), requests=requests, candidates=CANDIDATES
        )
        for name in ("history_item_rows", "candidate_item_rows"):
            shape = tensors[name].shape
            tensors[name] = torch.randint(FIRST_KNOWN_ROW, items, shape)
        arrays = {name: tensors[name].numpy() for name in EXAMPLE_NAMES}
        self.windows = Windows(tensors={name: arrays[name] for name in HISTORY_NAMES})
        clicked = arrays["candidate_item_rows"] % 2 == 0
        self.slates = Slates(
            tensors=arrays,
            clicked=clicked.astype(np.float32),
            positions=np.tile(np.arange(CANDIDATES), (requests, 1)),
            log_draw=np.zeros((requests, CANDIDATES), dtype=np.float32),
            request_at_ms=np.arange(requests, dtype=np.int64),
            user_ids=np.arange(requests).astype(np.str_),
        )

    def pretrain(self, options: FitOptions) -> None:
        """Train the encoder."""
        pretrain(self.model, self.windows, RECIPE, options)

    def finetune(self, options: FitOptions) -> None:
        """Train the click model."""
        finetune(self.model, self.slates, RECIPE, options)


def measured(
    stages: dict[int, Callable[[FitOptions], None]], rounds: int
) -> dict[int, float]:
    """Return the median time of a step (ms) by the number of items, in turns."""
    took: dict[int, list[float]] = {items: [] for items in stages}
    for _ in range(rounds):
        for items, stage in stages.items():
            timer = StepTimer()
            stage(FitOptions(progress=timer))
            took[items] += timer.seconds()
    return {items: 1e3 * statistics.median(times) for items, times in took.items()}


def main() -> None:
    """Print a row for each stage, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[50_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=20, help="of a stage, each time")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    say("drawing examples")
    catalogues = {items: Catalogue(items, options.steps) for items in options.items}
    found: Row = {"items": options.items}
    for name in ("pretrain", "finetune"):
        say(name)
        stages = {items: getattr(each, name) for items, each in catalogues.items()}
        row = measured(stages, options.rounds)
        ratio = row[options.items[-1]] / row[options.items[0]]
        shown = "  ".join(f"{items:,} items {ms:7.1f} ms" for items, ms in row.items())
        print(f"{name:<10} {shown}   ratio {ratio:.2f}")
        found[name] = {"ms_of_a_step": row, "ratio": ratio}
    found["worst_ratio"] = max(found[name]["ratio"] for name in ("pretrain", "finetune"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
