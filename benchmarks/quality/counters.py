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
from benchmarks.harness import figures
from benchmarks.models.trees import PARAMETERS
from benchmarks.quality.click_quality import ROOT
from benchmarks.quality.clicks.click_cutting import examples_of
from benchmarks.quality.clicks.click_examples import Examples, Part, load
from benchmarks.quality.clicks.click_scores import mean_auc
from benchmarks.quality.clicks.click_sources import read
from srp4ctr.features import columns as feature_columns
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.evaluation import quality

# Untuned: what one would begin with.
TREES = 200
METRICS = ("auc", "gauc", "log_loss")
# LightGBM by running counts of items without decay, measured elsewhere on the same week,
# came to an AUC / gAUC of .785 / .734 with the slate's size, .678 / .703 without.
SIZE = "slate_size"  # no column of ours
COLUMNS = (*feature_columns.REQUEST.names, *feature_columns.CANDIDATE.names)
ITEMS = tuple(
    n
    for n in feature_columns.CANDIDATE.names
    if n.startswith("item_") and "sequence" not in n
)
USERS = tuple(name for name in feature_columns.REQUEST.names if name.startswith("user_"))
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
    result: dict[str, float] = {}
    for name, variants in VARIANTS.items():
        try:
            folder = examples_of(read(name), RefreshConfig(), ROOT / "examples")
        except (ValueError, ConnectionError) as error:
            print(f"{name} is left out: {error}")
            continue
        result |= compare(load(folder), variants, seeds)
    shown = {k: v for k, v in result.items() if k.startswith(("ebnerd", "movielens_auc"))}
    print(json.dumps({name: round(value, 4) for name, value in shown.items()}))


def compare(
    examples: Examples,
    variants: Mapping[str, tuple[str, Columns]],
    seeds: Sequence[int],
) -> dict[str, float]:
    """Print a row per variant, trained on all but the judged slates; return the means."""
    past, future = (examples.train, examples.calibrate), examples.judge
    clicked = np.concatenate([part.clicked for part in past])
    num_requests = len(np.unique(future.requests))
    print(f"{examples.name}: {len(clicked):,} impressions teach, ", end="")
    print(f"{future.slates.shown.sum():,}, of {num_requests:,} requests, judge")
    columns_of_past = np.concatenate([table(part) for part in past])
    found: dict[str, float] = {}
    rows = []
    for variant, (suffix, columns) in variants.items():
        say(f"{examples.name}: {variant} …")
        index = [(*COLUMNS, SIZE).index(column) for column in columns]
        taught = lightgbm.Dataset(columns_of_past[:, index], clicked, free_raw_data=False)
        runs = [judged(taught, future, index, seed) for seed in seeds]
        means = {name: float(np.mean([run[name] for run in runs])) for name in METRICS}
        found |= {f"{examples.name}_{name}{suffix}": each for name, each in means.items()}
        rows.append({"columns": variant, **means})
    heads = {name: f"{name}:.4f" for name in METRICS}
    print(figures.table(rows, {"columns": "columns", **heads}))
    return found


def table(part: Part) -> NDArray[np.float32]:
    """Return ``COLUMNS`` and ``SIZE`` (M, …) of the candidates that are shown."""
    sizes = part.slate_sizes[np.nonzero(part.slates.shown)[0]]
    return np.column_stack([part.columns, sizes]).astype(np.float32)


def judged(
    taught: lightgbm.Dataset, future: Part, index: list[int], seed: int
) -> dict[str, float]:
    """Return the metrics on ``future`` of a model trained on ``taught``: ``index``."""
    booster = lightgbm.train({**PARAMETERS, "seed": seed}, taught, num_boost_round=TREES)
    scores = np.asarray(booster.predict(table(future)[:, index], num_threads=1))
    clicked = future.clicked > 0.5
    requests = future.requests[np.nonzero(future.slates.shown)[0]]
    return {
        "auc": quality.auc(clicked, scores),
        "gauc": mean_auc(clicked, scores, requests),
        "log_loss": quality.log_loss(clicked, scores),
    }


if __name__ == "__main__":
    main()
