"""Question: does pre-training by masked items and attributes make a better click model?

S3-Rec's protocol on its own files: a user's last item is ranked among 99 given others, the
one before it chooses the recipe, and the history is at most fifty behaviours. Popularity
and SASRec check the harness; FG-BERT by itself shows what the pre-training tasks give, and
SRP4CTR's click head what is left of it after fine-tuning. Published on Beauty,
HR@10 / NDCG@10: SASRec .4696 / .3156, S3-Rec .5506 / .3732.

    make bench NAME=pretraining ARGS="--data ../shared/data/s3rec --name Beauty"
    make bench NAME=pretraining ARGS="--data .data/cache --name ml-100k --quick"
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS, parser_of, say
from benchmarks.harness import figures
from benchmarks.harness.runs import cached, code_digest, digest_of, keep, restore, run_all
from benchmarks.harness.saved_result import merge_rows
from benchmarks.quality.leave_last import scores
from benchmarks.quality.leave_last.files import part_of, read
from benchmarks.quality.leave_last.leave_last_out import TEST, VALIDATION, LeaveLast
from benchmarks.quality.leave_last.recipe import RECIPE, Recipe
from benchmarks.quality.leave_last.variants import RUNS, VARIANTS, VARIANTS_CODE, Scorer
from srp4ctr.training.export.bundle_writer import count_flops, sizes_of
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR

FILE = RESULTS / "pretraining.json"
SEEDS = FILE.with_suffix(".seeds.jsonl")
REPEATED = 5  # seeds of SRP4CTR with and without pre-training; the others have three
QUICK_USERS, QUICK_EPOCHS = 3_000, 0.25
SCORED_USERS = 1_000  # at once: a hundred candidates each
COLUMNS = {
    "model": "model",
    "HR@10": "hr10±hr10_error:.4f",
    "NDCG@10": "ndcg10±ndcg10_error:.4f",
    "MRR": "mrr:.4f",
    "AUC": "auc:.4f",
    "short": "hr10_short_history:.4f",
    "tail": "hr10_long_tail:.4f",
    "HR@10 against SRP4CTR": "hr10_less±hr10_less_error:+.4f",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingRun:
    """One variant with one seed on one data set."""

    folder: Path
    name: str
    variant: str
    seed: int
    users: int | None
    recipe: Recipe

    @property
    def model(self) -> str:
        """The variant, and its share of the labels if it is not all."""
        share = self.recipe.label_share
        return self.variant if share == 1.0 else f"{self.variant}@{share:.0%}"

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}"

    def progress(self, step: str, done: int, total: int, note: str = "") -> None:
        """Print how far it is."""
        say(f"{self}: {step} {done} of {total} {note}")

    @property
    def file(self) -> Path:
        """Where its result is cached: other code, recipe or size is another run."""
        code = code_digest(*VARIANTS_CODE)
        digest = digest_of(self.users, self.recipe.of(self.variant), code)
        model = self.model.replace(" ", "-")
        return RUNS / f"{self.name}-{model}-seed{self.seed}-{digest}.json"


def main() -> None:
    """Run what is not there yet, print a table, then one JSON object."""
    options = _arguments()
    restore(SEEDS, RUNS)
    runs = list(_runs(options))
    missing = [run for run in runs if not run.file.is_file()]
    if None in run_all(execute, missing, options.workers):
        raise SystemExit("some runs failed: see above")
    rows = summary([execute(run) for run in runs])
    print(figures.table(rows, COLUMNS))
    if not options.quick:
        merge_rows(rows, FILE, ("data", "model"))
        keep([run.file for run in runs], RUNS, SEEDS)
    print(json.dumps({"rows": rows}))


def execute(run: PretrainingRun) -> dict[str, Any]:
    """Train and evaluate one variant, cache the result in its file, and return it."""
    found: dict[str, Any] = cached(run.file, lambda: _measured(run))
    return found


def _measured(run: PretrainingRun) -> dict[str, Any]:
    torch.set_num_threads(1)
    data = read(run.folder, run.name)
    if run.users is not None:
        data = part_of(data, run.users)
    began = time.process_time()
    trained = VARIANTS[run.variant](data, run.seed, run.recipe, run.progress)
    seconds = time.process_time() - began + trained.found_s
    ranks = {
        place: _ranks(data, trained.scorer, place, run.seed) for place in (VALIDATION, TEST)
    }
    seen = data.times_seen(data.answers(TEST))
    parts = scores.buckets(data.counts - TEST, seen, data.popularity[1])
    test = scores.values(ranks[TEST])
    result = {
        "data": run.name,
        "model": run.model,
        "seed": run.seed,
        "seconds": round(seconds),
        "flops": _flops(run, data),
        "validation": scores.values(ranks[VALIDATION]),
        "test": test,
        "buckets": {k: scores.values(ranks[TEST][chosen]) for k, chosen in parts.items()},
    }
    figures = ", ".join(f"{name} {value:.4f}" for name, value in test.items())
    say(f"{run}: {figures} ({seconds:.0f} s)")
    return result


def summary(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per model: means over its seeds, errors, differences from SRP4CTR.

    That is the SRP4CTR with as many labels.
    """
    models = list(dict.fromkeys(result["model"] for result in results))
    by_seed = {
        model: {result["seed"]: result for result in results if result["model"] == model}
        for model in models
    }
    rows = []
    for model, of in by_seed.items():
        _, at, share = model.partition("@")
        rows.append(_row(model, of, by_seed.get(f"srp4ctr{at}{share}", {})))
    return rows


def _row(model: str, of: Mapping[int, Any], best: Mapping[int, Any]) -> dict[str, Any]:
    """Return the fields that all harnesses share; null where one is undefined."""
    row: dict[str, Any] = {"data": next(iter(of.values()))["data"], "model": model}
    row |= dict.fromkeys(("log_loss", "calibration", "flops_1", "flops_100"))
    for metric in scores.METRICS:
        row |= _mean(metric, [each["test"][metric] for each in of.values()])
    row["gauc"] = row["auc"]  # one answer per user: the mean over users is both
    for bucket in next(iter(of.values()))["buckets"]:
        hits = [each["buckets"][bucket]["hr10"] for each in of.values()]
        row[f"hr10_{bucket}"] = figures.mean(hits, 4)
    for metric in ("hr10", "ndcg10"):
        common = sorted(set(of) & set(best))
        pairs = [of[s]["test"][metric] - best[s]["test"][metric] for s in common]
        row |= _mean(f"{metric}_less", pairs)
    found = [each["validation"]["hr10"] for each in of.values()]
    row["validation_hr10"] = figures.mean(found, 4)
    row |= {"seeds": len(of), "seconds": round(sum(e["seconds"] for e in of.values()))}
    row |= next(iter(of.values())).get("flops", {})
    return row


def _mean(name: str, values: Sequence[float]) -> dict[str, float | None]:
    return {name: figures.mean(values, 4), f"{name}_error": figures.error(values, 4)}


def _flops(run: PretrainingRun, data: LeaveLast) -> dict[str, int]:
    """Return the cost of a request by a model that ranks clicks; {} for the others."""
    if not run.variant.startswith("srp4ctr"):
        return {}
    config, tables = run.recipe.clicks.model, TableSizes.of(data.words, data.length)
    model, sizes = SRP4CTR(config, tables), sizes_of(config, tables)
    return {f"flops_{each}": count_flops(model, sizes, each).folded for each in (1, 100)}


def _ranks(data: LeaveLast, scorer: Scorer, place: int, seed: int) -> scores.Ranks:
    users = np.arange(len(data.counts))
    parts = np.array_split(users, max(len(users) // SCORED_USERS, 1))
    found = np.concatenate([scorer(place, part) for part in parts])
    return scores.ranks(found, seed)


def _runs(options: argparse.Namespace) -> Iterator[PretrainingRun]:
    recipe = RECIPE.shorter(QUICK_EPOCHS) if options.quick else RECIPE
    shares = [float(each) / 100.0 for each in options.labels.split(",")]
    for share, variant in itertools.product(shares, options.variants or VARIANTS):
        learns_clicks = variant.startswith("srp4ctr")
        if share < 1.0 and not learns_clicks:
            continue
        count = 1 if options.quick else options.seeds or (REPEATED if learns_clicks else 3)
        for seed in range(count):
            yield PretrainingRun(
                folder=options.data,
                name=options.name,
                variant=variant,
                seed=seed,
                users=QUICK_USERS if options.quick else None,
                recipe=replace(recipe, label_share=share),
            )


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add, names = parser.add_argument, list(VARIANTS)
    add("--data", type=Path, default=Path("../shared/data/s3rec"))
    add("--name", default="Beauty", help="of the files, or ml-100k")
    add("--seeds", type=int, help="5 for SRP4CTR, 3 for the others")
    add("--labels", default="100", help="per cent of the slates: 10,100")
    add("--variants", "--arms", nargs="+", choices=names, metavar="NAME")
    add("--quick", action="store_true", help="a part, in five minutes")
    add("--workers", type=int, default=1, help="processes of one thread")
    return parser.parse_args()


if __name__ == "__main__":
    main()
