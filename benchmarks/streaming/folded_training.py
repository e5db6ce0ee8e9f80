"""Claim: in training, too, the impressions of one request share one encoding.

The same model learns from the same impressions of a data set's training part, folded (a
request a row) and with a row per impression, as other libraries have it: each with the
history next to it, in batches of as many impressions. Turn by turn in one run, on one
thread; both give the same loss, which is checked first.

    SRP4CTR_DATA=../shared/data make bench NAME=folded_training ARGS="--data ebnerd"
"""

import json
import math
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import parser_of, say
from benchmarks.harness.figures import table
from benchmarks.quality.click_quality import ROOT
from benchmarks.quality.clicks.click_cutting import examples_of
from benchmarks.quality.clicks.click_examples import load
from benchmarks.quality.clicks.click_sources import read
from srp4ctr.features.tensors.schema import CANDIDATE_TENSORS
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import Slates, in_order
from srp4ctr.training.loop.train_step import loss_of
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import ClickObjective, batch_size, finetune

REQUESTS = 1_024
# The slate's loss needs a slate; dropout and forgotten ids would differ by row.
BATCH_REQUESTS = 64
RECIPE = RefreshConfig(
    batch_requests=BATCH_REQUESTS,
    model=ModelConfig(dropout=0.0),
    finetune_epochs=1,
    slate_loss_weight=0.0,
    id_dropout=0.0,
    bucket_by_length=True,
)
COLUMNS = {
    "data": "data",
    "impressions a request": "impressions_per_request:.1f",
    "folded s": "folded_s:.1f",
    "a row each s": "unfolded_s:.1f",
    "×": "speed_up:.1f",
}
CANDIDATE_NAMES = {spec.name for spec in CANDIDATE_TENSORS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The impressions in one of the two forms, and the batch that suits it."""

    slates: Slates
    config: RefreshConfig


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", nargs="+", choices=("ebnerd", "movielens"))
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--rounds", type=int, default=3, help="timed pairs per data set")
    parser.add_argument("--resume", type=Path, default=ROOT, help="where examples are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.data or ("movielens",):
        folder = examples_of(read(name), RefreshConfig(), options.resume / "examples")
        examples = load(folder)
        slates = examples.train.slates.take(slice(-options.requests, None))
        rows.append({"data": name, **measure(slates, examples.sizes, options.rounds)})
    print(table(rows, COLUMNS))
    print(json.dumps({"rows": rows}))


def measure(slates: Slates, sizes: TableSizes, rounds: int) -> dict[str, float]:
    """Return the CPU seconds of an epoch in both forms, the median of ``rounds``."""
    shown = int(slates.shown.sum())
    rows = BATCH_REQUESTS * shown // len(slates)
    folded = Form(slates=slates, config=RECIPE)
    unfolded = Form(
        slates=unfold(slates), config=replace(RECIPE, batch_requests=max(rows, 1))
    )
    loss, other = _loss(folded, sizes), _loss(unfolded, sizes)
    if not math.isclose(loss, other, rel_tol=1e-5):
        raise SystemExit(f"the two forms differ: {loss} and {other}")
    pairs = []
    for number in range(rounds):
        pairs.append((_seconds(folded, sizes), _seconds(unfolded, sizes)))
        say(f"{number + 1}/{rounds}: {pairs[-1][0]:.1f} and {pairs[-1][1]:.1f} CPU s")
    return {
        "requests": len(slates),
        "impressions_per_request": round(shown / len(slates), 2),
        "folded_s": round(statistics.median(a for a, _ in pairs), 2),
        "unfolded_s": round(statistics.median(b for _, b in pairs), 2),
        "speed_up": round(statistics.median(b / a for a, b in pairs), 2),
        "loss": round(loss, 6),
    }


def unfold(slates: Slates) -> Slates:
    """Return a slate of one for each impression of ``slates``."""
    request, place = np.nonzero(slates.shown)
    whole = slates.take(request)
    one = np.arange(len(request)), place
    tensors = {
        name: array[one][:, None] if name in CANDIDATE_NAMES else array
        for name, array in whole.tensors.items()
    }
    return replace(
        whole,
        tensors=tensors,
        clicked=whole.clicked[one][:, None],
        positions=whole.positions[one][:, None],
    )


def _model(sizes: TableSizes) -> SRP4CTR:
    torch.manual_seed(0)
    return SRP4CTR(RECIPE.model, sizes)


def _loss(form: Form, sizes: TableSizes) -> float:
    """Return the loss of all requests together, before any training."""
    objective = ClickObjective(_model(sizes), form.slates, form.config).eval()
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for rows in in_order(
        np.arange(len(form.slates)), batch_size(form.config, len(form.slates))
    ):
        batch = objective.batch(rows, objective.lengths[rows].max(axis=0))
        with torch.no_grad():
            found = objective(batch)
        sums = {name: sums.get(name, 0) + value for name, value in found.items()}
        number = objective.counts(batch)
        counts = {name: counts.get(name, 0) + each for name, each in number.items()}
    return float(loss_of(sums, counts))


def _seconds(form: Form, sizes: TableSizes) -> float:
    model = _model(sizes)
    began = time.process_time()
    finetune(model, form.slates, form.config, FitOptions())
    return time.process_time() - began


if __name__ == "__main__":
    main()
