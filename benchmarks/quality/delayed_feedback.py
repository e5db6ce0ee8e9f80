"""Claim: a label corrected later costs no calibration, nor does learning before it comes.

EB-NeRD through the stream's own label join, with a window of 60 s: 82 % of the clicks come
in it. The same small SRP4CTR learns from the newest requests before the validation week

- ``frozen``: from the labels as they stood after 60 s; what came later is a non-click,
- ``fake-negative weighted``: from each impression as a non-click at once and each click
  that came before the training's end besides (Ktena et al., RecSys 2019),
- ``corrected``: from the labels with all corrections, as a refresh uses them,

and is judged, without any calibration afterwards, on corrected labels of that week.

    SRP4CTR_DATA=../shared/data make bench NAME=delayed_feedback ARGS="--seeds 1"
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import parser_of, say
from benchmarks.harness.figures import mean, table
from benchmarks.harness.raw_logs import labels_of, punctual, write_log
from benchmarks.quality.clicks import ebnerd
from benchmarks.quality.clicks.click_cutting import CORRECTION_MS, TTL_DAYS
from benchmarks.quality.clicks.click_scores import mean_auc
from benchmarks.quality.clicks.click_sources import LENGTH
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.point_in_time import RequestSnapshots
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.label_join import ImpressionLabel
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import quality
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import finetune, serving_logits

WINDOW_S = 60
FROZEN, WEIGHTED, CORRECTED = "frozen", "fake-negative weighted", "corrected"
METRICS = ("auc", "gauc", "log_loss", "calibration")
# Small, so that the comparison takes minutes; pre-training would change no labels.
RECIPE = RefreshConfig(
    model=ModelConfig(width=32, num_layers=1, head_width=64),
    pretraining="none",
    finetune_epochs=2,
    batch_requests=256,
    finetune_learning_rate=4e-3,
    slate_loss_weight=0.0,  # it does not see how many are clicked
    id_dropout=0.0,
    device="cpu",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTask:
    """What every variant is given, and by which it is judged."""

    past: Slates
    in_time: NDArray[np.float32]
    """(R, N): the clicks of ``past`` within 60 s."""
    by_then: NDArray[np.float32]
    """(R, N): the clicks of ``past`` before the first request that judges."""
    future: Slates
    sizes: TableSizes


def main() -> None:
    """Print a line per variant, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=8_000, help="that teach")
    parser.add_argument("--judged", type=int, default=8_000, help="requests that judge")
    options = parser.parse_args()
    if not ebnerd.STREAM.is_file():
        sys.exit(f"there is no {ebnerd.STREAM}: set SRP4CTR_DATA")
    task = read(options.requests, options.judged)
    late = 1.0 - task.in_time.sum() / task.past.clicked.sum()
    print(f"{len(task.past):,} requests teach, {late:.1%} of their clicks are late;")
    print(f"{len(task.future):,} judge")
    rows = [
        of_variant(variant, task, options.seeds)
        for variant in (FROZEN, WEIGHTED, CORRECTED)
    ]
    print(table(rows, {"": "model", **{name: f"{name}:.4f" for name in METRICS}}))
    print(json.dumps({"rows": rows}))


def of_variant(variant: str, task: TrainingTask, seeds: int) -> dict[str, Any]:
    """Train and judge ``variant`` by each seed; return its row of means."""
    runs = [
        judged(trained_model(variant, task, seed), task.future) for seed in range(seeds)
    ]
    say(f"{variant}: {runs}")
    means = {name: mean([run[name] for run in runs], 4) for name in METRICS}
    absent = dict.fromkeys(("hr10", "ndcg10", "flops_1", "flops_100"))
    named = {"data": "EB-NeRD", "model": f"SRP4CTR, labels {variant}", "seeds": seeds}
    return named | means | absent


def trained_model(variant: str, task: TrainingTask, seed: int) -> SRP4CTR:
    """Return a model that was trained on what ``variant`` knows."""
    clicked = {
        FROZEN: task.in_time,
        WEIGHTED: task.by_then,
        CORRECTED: task.past.clicked,
    }
    config = replace(RECIPE, seed=seed, fake_negative_weighted=variant == WEIGHTED)
    torch.manual_seed(seed)
    model = SRP4CTR(config.model, task.sizes)
    past = replace(task.past, clicked=clicked[variant])
    finetune(model, past, config, FitOptions())
    return model


def judged(model: SRP4CTR, future: Slates) -> dict[str, float]:
    """Return the metrics of the model's own probabilities."""
    shown = future.shown
    clicked, logits = future.clicked[shown], serving_logits(model, future).click[shown]
    predicted = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    requests = np.nonzero(shown)[0]
    return {
        "auc": quality.auc(clicked, predicted),
        "gauc": mean_auc(clicked > 0, predicted, requests),
        "log_loss": quality.log_loss(clicked, predicted),
        "calibration": quality.calibration(clicked, predicted),
    }


def read(num_past: int, num_future: int) -> TrainingTask:
    """Return the last ``num_past`` requests, and some of those that came after."""
    judged_from_ms = ebnerd.began_ms("validation")
    with tempfile.TemporaryDirectory() as folder:
        labels = _write(Path(folder))
        with event_tables.opened(Path(folder)) as log:
            found = point_in_time.snapshot(log, LENGTH, TTL_DAYS)
            counts = point_in_time.item_counts(log, judged_from_ms)
    words = vocabulary.build(counts, [], min_item_count=RECIPE.min_item_count)
    slates = examples.slates(found, words, item_attributes.of_profiles({}, words))
    # The file's order is not the page's: a position says nothing.
    slates = replace(slates, positions=np.zeros_like(slates.positions))
    first = int(np.searchsorted(slates.request_at_ms, judged_from_ms))
    past = np.arange(max(first - num_past, 0), first)
    chosen = np.random.default_rng(0).permutation(np.arange(first, len(slates)))
    waited_ms, clicked_ms = _clicks(found, labels)
    return TrainingTask(
        past=slates.take(past),
        in_time=_placed(waited_ms <= WINDOW_S * 1000, slates)[past],
        by_then=_placed(clicked_ms < judged_from_ms, slates)[past],
        future=slates.take(np.sort(chosen[:num_future])),
        sizes=TableSizes.of(words, LENGTH),
    )


def _write(folder: Path) -> list[ImpressionLabel]:
    """Write a raw log of all that happened, and return its labels, with corrections."""
    say("joining, writing and cutting the events …")
    shown = list(ebnerd.impressions_and_clicks())
    labels = list(labels_of(punctual(shown), WINDOW_S * 1000, CORRECTION_MS))
    happened = punctual([*shown, *ebnerd.reads()])
    write_log(folder, [*happened, *((label, label.matured_at) for label in labels)])
    return labels


def _clicks(
    found: RequestSnapshots, labels: Iterable[ImpressionLabel]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how long each candidate waited for its click, and when it came: ∞ for none."""
    came_ms = {
        (label.user_id, label.impression_at, item_key(label.item_id)): label.matured_at
        for label in labels
        if label.clicked
    }
    users = found.user_ids[found.candidate_requests].tolist()
    times_ms = found.times_ms[found.candidate_requests]
    candidates = zip(
        users, times_ms.tolist(), found.candidate_item_keys.tolist(), strict=True
    )
    clicked_ms = np.array([came_ms.get(each, np.inf) for each in candidates])
    return clicked_ms - times_ms, clicked_ms


def _placed(flags: NDArray[np.bool_], slates: Slates) -> NDArray[np.float32]:
    """Return ``flags`` of the candidates, which lie by request and position, as (R, N)."""
    placed = np.zeros(slates.clicked.shape, dtype=np.float32)
    placed[slates.shown] = flags
    return placed


if __name__ == "__main__":
    main()
