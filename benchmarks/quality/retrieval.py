"""Claim: what the pre-trained encoder expects next is retrieved as well as by SASRec.

Full ranking, leave-last: a user's last item among all items but those of the history that
serving reads. The product's own files and code find the candidates. SASRec is trained with
a sampled softmax on the same behaviours and ranks the same items; so do popularity and
EASE, a linear model in closed form. Differences are paired by user.

    make bench NAME=retrieval ARGS="--data ../shared/data --names ml-100k Beauty kuairand"
    make bench NAME=retrieval ARGS="--names ml-100k --quick"
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks import RESULTS, parser_of, say
from benchmarks.harness import figures
from benchmarks.harness.saved_result import circumstances, merged_rows
from benchmarks.models.ease import item_weights
from benchmarks.quality.leave_last.files import part_of, read
from benchmarks.quality.leave_last.leave_last_out import TEST, VALIDATION, LeaveLast
from benchmarks.quality.leave_last.recipe import RECIPE, Recipe
from benchmarks.quality.leave_last.variants import pretrained, trained_sasrec
from srp4ctr.atomic_files import replace_text
from srp4ctr.training.dataset.batches import HISTORY_NAMES, torch_rows
from srp4ctr.training.export.retrieval import Pretrained, Retriever, item_vectors
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.triton_repo.serving.item_vectors import greatest

Int64s = NDArray[np.int64]
Scores = NDArray[np.float32]
Score = Callable[[Int64s], Scores]
Rank = Callable[[Int64s], list[Int64s]]
OURS = "fg-bert"
MODELS = ("popularity", "ease", "sasrec", OURS)
FILE = RESULTS / "retrieval.json"
DEPTHS = (20, 100)
FOLDERS = {"ml-100k": "ml-100k", "Beauty": "s3rec", "kuairand": "kuairand_pure"}
USERS_AT_ONCE = 500
QUICK_USERS, QUICK_EPOCHS = 2_000, 0.25
_SURE = 1.96
COLUMNS = {
    "data": "data",
    "model": "model",
    **{f"Recall@{depth}": f"recall_{depth}:.4f" for depth in DEPTHS},
    "less SASRec@100": "less_sasrec_100±margin_100:+.4f",
}


def main() -> None:
    """Train, retrieve and compare; print a table, then one JSON object."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    rows: list[Mapping[str, Any]] = []
    recipe = RECIPE.with_threads(options.threads)
    for name in options.names:
        rows += compared(name, options, recipe)
    print(figures.table(rows, COLUMNS))
    if not options.quick:
        rows = merged_rows(rows, FILE, ("data", "model"))
        rows = sorted(rows, key=itemgetter("data"))
        found = {**summary(rows), **circumstances(), "rows": rows}
        replace_text(FILE, json.dumps(found, indent=1) + "\n")
    print(json.dumps({**summary(rows), "rows": rows}))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the least ratios of Recall@100 over the data sets."""
    of = {(row["data"], row["model"]): row["recall_100"] for row in rows}
    names = {row["data"] for row in rows}
    return {
        f"recall_100_over_{baseline}": round(
            min(of[name, OURS] / of[name, baseline] for name in names), 4
        )
        for baseline in ("popularity", "sasrec", "ease")
        if all((name, model) in of for name in names for model in (OURS, baseline))
    }


def compared(
    name: str, options: argparse.Namespace, recipe: Recipe
) -> list[dict[str, Any]]:
    """Return a row for each way to retrieve on the data set ``name``."""
    folder = options.data / FOLDERS[name] if name != "ml-100k" else options.cache
    data = read(folder, name)
    if options.quick:
        data, recipe = part_of(data, QUICK_USERS), recipe.shorter(QUICK_EPOCHS)
    data = replace(data, negatives=np.zeros((len(data.counts), 0), dtype=np.int64))
    found: dict[str, list[Int64s]] = {}
    for seed in range(options.seeds):
        rank_by = rankers(data, seed, recipe)
        for model in options.models:
            say(f"{name}, seed {seed}: {model}")
            found.setdefault(model, []).append(_places(data, rank_by[model]()))
    return [_row(name, model, found) for model in found]


def rankers(data: LeaveLast, seed: int, recipe: Recipe) -> dict[str, Callable[[], Rank]]:
    """Return what trains each of ``MODELS``, to give users the rows of their candidates."""
    popular = data.times_seen(data.words.item_keys).astype(np.float32)

    def popularity(users: Int64s) -> Scores:
        return np.tile(popular, (len(users), 1))

    def alone(score: Score) -> Rank:
        return lambda users: [_best(each) for each in _unseen(data, users, score(users))]

    return {
        "popularity": lambda: alone(popularity),
        "ease": lambda: alone(_ease(data)),
        "sasrec": lambda: alone(_sasrec(data, seed, recipe)),
        OURS: lambda: alone(_expectations(data, seed, recipe)),
    }


def _ease(data: LeaveLast) -> Score:
    """Return EASE's scores, of all behaviours but the last two of each user."""
    rows = _known_rows(data, VALIDATION, np.arange(len(data.counts)))
    weights = item_weights(_done(rows, len(data.words.item_keys)))
    return lambda users: np.asarray(
        _done(_known_rows(data, TEST, users), len(weights)) @ weights
    )


def _sasrec(data: LeaveLast, seed: int, recipe: Recipe) -> Score:
    encoder = trained_sasrec(data, seed, recipe, lambda *_: None)

    @torch.no_grad()
    def sasrec(users: Int64s) -> Scores:
        rows = torch.from_numpy(data.words.item_rows(data.before(TEST, users)))
        table = encoder.items.weight[data.words.first_known_row :]
        scores: Scores = (encoder(rows)[:, -1] @ table.T).numpy()
        return scores

    return sasrec


def _expectations(data: LeaveLast, seed: int, recipe: Recipe) -> Score:
    """Return the products of the product's expected states and item vectors."""
    config = replace(recipe.pretraining, pretraining="both", seed=seed)

    def progress(step: str, done: int, total: int, note: str = "") -> None:
        if done % 500 == 0:
            say(f"{step} {done} of {total} {note}")

    model, heads, _ = pretrained(data, config, FitOptions(progress=progress))
    kept = Pretrained.of(model, heads, config)
    assert kept is not None
    vectors = item_vectors(kept, data.attributes.of(data.words.item_keys))
    retriever = Retriever(kept.model).eval()

    @torch.no_grad()
    def expects(users: Int64s) -> Scores:
        slates = data.questions(TEST, users).tensors
        first = np.arange(len(users))  # one slate a user: there is room for all candidates
        rows = torch_rows(slates, first, torch.device("cpu"))
        scores: Scores = retriever(*(rows[n] for n in HISTORY_NAMES)).numpy() @ vectors.T
        return scores

    return expects


def _unseen(data: LeaveLast, users: Int64s, scores: Scores) -> Scores:
    """Return ``scores`` without the items of the histories that serving reads."""
    rows = _known_rows(data, TEST, users)
    user, place = np.nonzero(rows >= 0)
    scores = scores.copy()
    scores[user, rows[user, place]] = -np.inf
    return scores


def _known_rows(data: LeaveLast, place: int, users: Int64s) -> Int64s:
    """Return the vocabulary's rows of histories before the answer; below 0 if unknown."""
    rows: Int64s = data.words.item_rows(data.before(place, users))
    return rows - data.words.first_known_row


def _done(rows: Int64s, items: int) -> csr_matrix:
    """Return 1 where a user (row) did something with an item (column)."""
    user, place = np.nonzero(rows >= 0)
    done = np.zeros((len(rows), items), dtype=np.float32)
    done[user, rows[user, place]] = 1
    return csr_matrix(done)


def _best(scores: Scores) -> Int64s:
    """Return the rows of the greatest scores, in order."""
    rows = greatest(scores, max(DEPTHS))
    return rows[np.argsort(-scores[rows], kind="stable")]


def _places(data: LeaveLast, rank: Callable[[Int64s], list[Int64s]]) -> Int64s:
    """Return the place of each user's answer; a large one where it is not found."""
    every = np.arange(len(data.counts))
    answers = data.words.item_rows(data.answers(TEST)) - data.words.first_known_row
    places = np.full(len(every), np.iinfo(np.int64).max)
    for users in np.array_split(every, math.ceil(len(every) / USERS_AT_ONCE)):
        for user, rows in zip(users.tolist(), rank(users), strict=True):
            if len(at := np.flatnonzero(rows == answers[user])):
                places[user] = at[0]
    return places


def _row(name: str, model: str, found: Mapping[str, list[Int64s]]) -> dict[str, Any]:
    row: dict[str, Any] = {"data": name, "model": model, "seeds": len(found[model])}
    for depth in DEPTHS:
        hits = np.mean([places < depth for places in found[model]], axis=0)
        row[f"recall_{depth}"] = round(float(hits.mean()), 4)
        if "sasrec" not in found:
            continue
        less = hits - np.mean([places < depth for places in found["sasrec"]], axis=0)
        row[f"less_sasrec_{depth}"] = round(float(less.mean()), 4)
        margin = _SURE * less.std() / math.sqrt(len(less))
        row[f"margin_{depth}"] = round(float(margin), 4)
    return row


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("../shared/data"))
    add("--cache", type=Path, default=Path(".data/cache"), help="of MovieLens' wheel")
    add("--names", nargs="+", choices=list(FOLDERS), default=list(FOLDERS))
    add("--models", nargs="+", choices=MODELS, default=MODELS)
    add("--seeds", type=int, default=1)
    add("--threads", type=int, default=1)
    add("--quick", action="store_true", help="a quarter of the epochs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
