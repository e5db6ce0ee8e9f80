"""Claim: on a newspaper, items' fresh counters carry most of what all our columns know.

EB-NeRD, and then MovieLens-100K, are written as raw logs by the stream's own writer,
labelled by its own join, and cut as a refresh cuts them. LightGBM learns on the earlier
requests, by some columns of the features alone, and is judged on the later ones: EB-NeRD's
official validation week, MovieLens' newest fifth. gAUC is the mean over requests.

EB-NeRD has no request without a click, and most have one: of n items a click is on each
with 1 / n. So whoever knows n has a lead that serving has not; some arms show how great.

    SRP4CTR_DATA=../shared/data make bench NAME=counters ARGS="--seeds 1"
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import event_log, point_in_time, vocabulary
from features.item_fields import Attributes
from features.schema import CANDIDATE_FEATURES, REQUEST_FEATURES
from local import movielens
from streams.events import Behavior, Click, Impression, ItemUpdate, item_key
from tests.features.logs import write_log
from tests.streams import test_ebnerd as ebnerd
from training import examples, metrics
from training.judging import boundary_ms

LENGTH, TTL_DAYS = 50, 90.0
VALIDATION = ebnerd.DATA / "ebnerd_demo" / "demo_validation_behaviors.parquet"
CACHE = Path(".data/cache")
HELD_OUT_SHARE = 0.2
# Untuned: what one would begin with.
TREES = 200
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "deterministic": True,
    "verbose": -1,
}
METRICS = ("auc", "gauc", "log_loss")
# LightGBM by running counts of items, measured elsewhere on the same week. Counts without
# decay, beside these arms, came to .785 / .734 with the slate's size, .678 / .703 without.
REFERENCE = {"auc": 0.785, "gauc": 0.733}

SIZE = "slate_size"  # no column of ours
COLUMNS = (*REQUEST_FEATURES, *CANDIDATE_FEATURES)
ITEM_COUNTERS = tuple(
    name
    for name in CANDIDATE_FEATURES
    if name.startswith("item_") and "sequence" not in name
)
USER_COUNTERS = tuple(name for name in REQUEST_FEATURES if name.startswith("user_"))
WITHOUT_ATTRIBUTES = tuple(name for name in COLUMNS if "attribute" not in name)
WITHOUT_EXPOSURES = tuple(name for name in COLUMNS if not name.startswith("user_item_"))
EBNERD_ARMS = {
    "item counters": ITEM_COUNTERS,
    "item and user counters": (*USER_COUNTERS, *ITEM_COUNTERS),
    "all columns": COLUMNS,
    "item counters, slate's size": (*ITEM_COUNTERS, SIZE),
    "all but user × item, slate's size": (*WITHOUT_EXPOSURES, SIZE),
    "all columns, slate's size": (*COLUMNS, SIZE),
}
EBNERD_SUFFIXES = (
    "_of_items",
    "_of_items_and_users",
    "",
    "_of_items_and_size",
    "_without_exposures_with_size",
    "_with_size",
)
MOVIELENS_ARMS = {
    "all but user × attribute": WITHOUT_ATTRIBUTES,
    "all columns": COLUMNS,
}
UserEvents = Iterable[Impression | Click | Behavior]
Measured = dict[str, tuple[float, float]]  # metric → mean and deviation over the seeds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """M impressions by time: features known at the request, and matured labels."""

    features: NDArray[np.float32]  # (M, COLUMNS and SIZE)
    clicked: NDArray[np.bool_]
    requests: NDArray[np.int64]
    """The number of the request that each impression belongs to."""
    at_ms: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.bool_]) -> "Table":
        """Return the impressions ``chosen``."""
        return Table(
            features=self.features[chosen],
            clicked=self.clicked[chosen],
            requests=self.requests[chosen],
            at_ms=self.at_ms[chosen],
        )


def main() -> None:
    """Print a table per data set, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print(f"{'':<34} {'AUC':>15} {'gAUC':>15} {'log loss':>15}")
    result = of_ebnerd(seeds) | of_movielens(seeds)
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


def of_ebnerd(seeds: Sequence[int]) -> dict[str, float]:
    """Print a line per arm on EB-NeRD and return their figures."""
    for needed in (ebnerd.STREAM, VALIDATION):
        if not needed.is_file():
            print(f"EB-NeRD is left out: there is no {needed} (see SRP4CTR_DATA)")
            return {}
    table = cut(chain(ebnerd.a_stream(), reads()), {})
    measured = compare("EB-NeRD", table, validation_began_ms(), EBNERD_ARMS, seeds)
    print(f"{'  running item counts: reference':<34} ", end="")
    print(" ".join(f"{REFERENCE[name]:>15.4f}" for name in ("auc", "gauc")))
    return {
        f"ebnerd_{metric}{suffix}": measured[arm][metric][0]
        for arm, suffix in zip(EBNERD_ARMS, EBNERD_SUFFIXES, strict=True)
        for metric in METRICS
    }


def of_movielens(seeds: Sequence[int]) -> dict[str, float]:
    """Print a line per arm on MovieLens and return the AUC without and with attributes."""
    try:
        events = movielens.read(movielens.fetch(CACHE))
    except ConnectionError as error:
        print(f"MovieLens-100K is left out: {error}")
        return {}
    profiles = {
        item_key(event.item_id): {
            name: value if isinstance(value, str) else tuple(value)
            for name, value in event.attributes.items()
        }
        for event in events
        if isinstance(event, ItemUpdate)
    }
    acted = [e for e in events if isinstance(e, Impression | Click | Behavior)]
    acted.sort(key=lambda event: event.occurred_at)
    table = cut(acted, profiles)
    _, first = np.unique(table.requests, return_index=True)
    boundary = boundary_ms(table.at_ms[first], HELD_OUT_SHARE)
    measured = compare("MovieLens-100K", table, boundary, MOVIELENS_ARMS, seeds)
    without, complete = (measured[name]["auc"][0] for name in MOVIELENS_ARMS)
    return {"movielens_auc_without": without, "movielens_auc_with": complete}


def validation_began_ms() -> int:
    """Return the time of the first request of EB-NeRD's official validation week."""
    began = pc.min(pq.read_table(VALIDATION, columns=["impression_time"])[0]).as_py()
    return int(np.datetime64(began, "ms").astype(int))


def reads() -> Iterator[Behavior]:
    """Yield what EB-NeRD's users read; how long is known too late to be used."""
    table = pq.read_table(
        ebnerd.STREAM, columns=["behavior", "ts_ms", "user_id", "item_id"]
    )
    table = table.filter(pc.equal(table["behavior"], "read"))
    ids = (table[name].cast("string").to_pylist() for name in ("user_id", "item_id"))
    for at_ms, user, item in zip(table["ts_ms"].to_pylist(), *ids, strict=True):
        yield Behavior(
            event_id="r", user_id=user, item_id=item, action="read", occurred_at=at_ms
        )


def cut(events: UserEvents, profiles: Mapping[int, Attributes]) -> Table:
    """Return the features of every impression, by way of a raw log and its labels."""
    happened = list(events)
    with tempfile.TemporaryDirectory() as folder:
        _say(f"joining and writing {len(happened):,} events")
        shown = (event for event in happened if not isinstance(event, Behavior))
        labels = ebnerd.published(ebnerd.punctual(shown))
        # Each is known as soon as it happens.
        known = [(event, event.occurred_at) for event in happened]
        write_log(Path(folder), [*known, *((each, each.matured_at) for each in labels)])
        _say("cutting")
        with event_log.opened(Path(folder)) as log:
            found = point_in_time.snapshot(log, LENGTH, TTL_DAYS)
    words = vocabulary.build({}, profiles.values())
    slates = examples.slates(found, words, examples.item_attributes(profiles, words))
    # Slates lie by request and position, as the candidates of the snapshots do.
    request, place = np.nonzero(slates.shown)
    by_request = slates.tensors["request_features"][request]
    by_candidate = slates.tensors["candidate_features"][request, place]
    sizes = np.bincount(found.candidate_requests)[found.candidate_requests]
    return Table(
        features=np.column_stack([by_request, by_candidate, sizes]).astype(np.float32),
        clicked=found.candidate_clicked,
        requests=found.candidate_requests,
        at_ms=found.times_ms[found.candidate_requests],
    )


def compare(
    name: str,
    table: Table,
    boundary: int,
    arms: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
) -> dict[str, Measured]:
    """Learn before ``boundary``, judge from it on; print a line per arm, return them."""
    past, future = table.rows(table.at_ms < boundary), table.rows(table.at_ms >= boundary)
    asked = len(np.unique(future.requests))
    print(f"{name}: {len(past.clicked):,} impressions teach, ", end="")
    print(f"{len(future.clicked):,}, of {asked:,} requests, judge")
    measured = {}
    for arm, columns in arms.items():
        _say(f"{name}: {arm}")
        index = [(*COLUMNS, SIZE).index(column) for column in columns]
        runs = [judged(past, future, index, seed) for seed in seeds]
        measured[arm] = {
            metric: (
                float(np.mean([run[metric] for run in runs])),
                float(np.std([run[metric] for run in runs])),
            )
            for metric in METRICS
        }
        figures = (f"{mean:>7.4f} ± {std:.4f}" for mean, std in measured[arm].values())
        print(f"  {arm:<32} " + " ".join(f"{figure:>15}" for figure in figures))
    return measured


def judged(past: Table, future: Table, index: list[int], seed: int) -> dict[str, float]:
    """Return the metrics on ``future`` of a model that learnt columns ``index``."""
    learnt = lightgbm.train(
        PARAMETERS | {"seed": seed},
        lightgbm.Dataset(past.features[:, index], past.clicked.astype(np.float32)),
        num_boost_round=TREES,
    )
    scores = np.asarray(learnt.predict(future.features[:, index], num_threads=1))
    return {
        "auc": metrics.auc(future.clicked, scores),
        "gauc": mean_auc(future.clicked, scores, future.requests),
        "log_loss": metrics.log_loss(future.clicked, scores),
    }


def mean_auc(
    clicked: NDArray[np.bool_], scores: NDArray[np.float64], requests: NDArray[np.int64]
) -> float:
    """Return the mean AUC of the requests (ascending) with a click and a non-click.

    Each counts alike, as in the figures published on EB-NeRD; ``metrics.gauc`` weights.
    """
    starts = np.flatnonzero(np.diff(requests)) + 1
    parts = zip(np.split(clicked, starts), np.split(scores, starts), strict=True)
    return float(np.nanmean([metrics.auc(*part) for part in parts]))


def _say(doing: str) -> None:
    print(f"{doing} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
