"""Claim: on a newspaper, items' fresh counters carry most of what all our columns know.

EB-NeRD, and then MovieLens-100K, are written as raw logs by the stream's own writer,
labelled by its own join, and cut as a refresh cuts them. LightGBM learns on the earlier
requests, by only some columns of the features, and is judged on the later ones: EB-NeRD's
official validation week, MovieLens' newest fifth. gAUC is the mean over requests.

EB-NeRD has no request without a click, and most have one: of n items a click is on each
with 1 / n. So a model that knows n has a lead that serving has not;
some variants show how great.

    SRP4CTR_DATA=../shared/data make bench NAME=counters ARGS="--seeds 1"
"""

import json
from collections.abc import Mapping, Sequence

import lightgbm
import numpy as np
from numpy.typing import NDArray

from benchmarks import parser_of, say
from benchmarks.models.trees import PARAMETERS
from benchmarks.quality.click_quality import ROOT
from benchmarks.quality.clicks.click_cutting import examples_of
from benchmarks.quality.clicks.click_examples import Examples, Part, load
from benchmarks.quality.clicks.click_scores import clicked_in, mean_auc
from benchmarks.quality.clicks.click_sources import read
from srp4ctr.features.tensors.schema import CANDIDATE_FEATURES, REQUEST_FEATURES
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.evaluation import metrics

# Untuned: what one would begin with.
TREES = 200
METRICS = ("auc", "gauc", "log_loss")
# LightGBM by running counts of items, measured elsewhere on the same week. Counts without
# decay came to .785 / .734 with the slate's size, .678 / .703 without.
REFERENCE = {"auc": 0.785, "gauc": 0.733}

SIZE = "slate_size"  # no column of ours
COLUMNS = (*REQUEST_FEATURES, *CANDIDATE_FEATURES)
ITEMS = tuple(
    n for n in CANDIDATE_FEATURES if n.startswith("item_") and "sequence" not in n
)
USERS = tuple(name for name in REQUEST_FEATURES if name.startswith("user_"))
WITHOUT_ATTRIBUTES = tuple(name for name in COLUMNS if "attribute" not in name)
WITHOUT_EXPOSURES = tuple(name for name in COLUMNS if not name.startswith("user_item_"))
Columns = tuple[str, ...]
# By data set and variant: the end of its fields' names in the JSON, and its columns.
VARIANTS: dict[str, dict[str, tuple[str, Columns]]] = {
    "ebnerd": {
        "item counters": ("_of_items", ITEMS),
        "item and user counters": ("_of_items_and_users", (*USERS, *ITEMS)),
        "all columns": ("", COLUMNS),
        "item counters, slate's size": ("_of_items_and_size", (*ITEMS, SIZE)),
        "all but user × item, slate's size": (
            "_without_exposures_with_size",
            (*WITHOUT_EXPOSURES, SIZE),
        ),
        "all columns, slate's size": ("_with_size", (*COLUMNS, SIZE)),
    },
    "movielens": {
        "all but user × attribute": ("_without", WITHOUT_ATTRIBUTES),
        "all columns": ("_with", COLUMNS),
    },
}


def main() -> None:
    """Print a table per data set, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print(f"{'':<34} {'AUC':>15} {'gAUC':>15} {'log loss':>15}")
    result: dict[str, float] = {}
    for name, variants in VARIANTS.items():
        try:
            folder = examples_of(read(name), RefreshConfig(), ROOT / "examples")
        except (ValueError, ConnectionError) as error:
            print(f"{name} is left out: {error}")
            continue
        result |= compare(load(folder), variants, seeds)
        if name == "ebnerd":
            reference = " ".join(f"{value:>15.4f}" for value in REFERENCE.values())
            print(f"{'  running item counts: reference':<34} {reference}")
    shown = {k: v for k, v in result.items() if k.startswith(("ebnerd", "movielens_auc"))}
    print(json.dumps({name: round(value, 4) for name, value in shown.items()}))


def compare(
    examples: Examples,
    variants: Mapping[str, tuple[str, Columns]],
    seeds: Sequence[int],
) -> dict[str, float]:
    """Print a line per variant, trained on all but the judged slates; return the means."""
    past, future = (examples.train, examples.calibrate), examples.judge
    clicked = np.concatenate([clicked_in(part) for part in past])
    num_requests = len(np.unique(future.requests))
    print(f"{examples.name}: {len(clicked):,} impressions teach, ", end="")
    print(f"{future.slates.shown.sum():,}, of {num_requests:,} requests, judge")
    columns_of_past = np.concatenate([table(part) for part in past])
    found = {}
    for variant, (suffix, columns) in variants.items():
        say(f"{examples.name}: {variant} …")
        index = [(*COLUMNS, SIZE).index(column) for column in columns]
        taught = lightgbm.Dataset(columns_of_past[:, index], clicked, free_raw_data=False)
        runs = [judged(taught, future, index, seed) for seed in seeds]
        cells = []
        for metric in METRICS:
            values = [run[metric] for run in runs]
            found[f"{examples.name}_{metric}{suffix}"] = float(np.mean(values))
            cells.append(f"{np.mean(values):>7.4f} ± {np.std(values):.4f}")
        print(f"  {variant:<32} " + " ".join(f"{cell:>15}" for cell in cells))
    return found


def table(part: Part) -> NDArray[np.float32]:
    """Return ``COLUMNS`` and ``SIZE`` (M, …) of the candidates that are shown."""
    shown = part.slates.shown
    request = np.nonzero(shown)[0]
    by_request = part.slates.tensors["request_features"][request]
    by_candidate = part.slates.tensors["candidate_features"][shown]
    sizes = part.slate_sizes[request]
    return np.column_stack([by_request, by_candidate, sizes]).astype(np.float32)


def judged(
    taught: lightgbm.Dataset, future: Part, index: list[int], seed: int
) -> dict[str, float]:
    """Return the metrics on ``future`` of a model trained on ``taught``: ``index``."""
    booster = lightgbm.train({**PARAMETERS, "seed": seed}, taught, num_boost_round=TREES)
    scores = np.asarray(booster.predict(table(future)[:, index], num_threads=1))
    clicked = clicked_in(future) > 0.5
    requests = future.requests[np.nonzero(future.slates.shown)[0]]
    return {
        "auc": metrics.auc(clicked, scores),
        "gauc": mean_auc(clicked, scores, requests),
        "log_loss": metrics.log_loss(clicked, scores),
    }


if __name__ == "__main__":
    main()
