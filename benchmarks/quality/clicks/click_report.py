"""Results of many seeds → a table per data set, and the rows of ``results/``.

Each figure is the mean over the seeds with its standard error; a difference from SRP4CTR
is the mean of the differences of equal seeds, which leaves out what both share.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import figures
from benchmarks.quality.clicks.variants import REFERENCE, VARIANTS

Result = Mapping[str, Any]
Row = dict[str, Any]
PAIRED = ("auc", "gauc", "log_loss")
BUCKETS = ("tail", "new_items", "no_history", "short_history", "long_history")
COLUMNS = {
    "model": "model",
    "seeds": "seeds",
    "failed": "seeds_failed",
    **{name.replace("_", " "): f"{name}±{name}_se:.4f" for name in PAIRED},
    "NE": "normalised_entropy:.3f",
    "p / y": "calibration:.3f",
    "gAUC - srp4ctr": "gauc_minus_srp4ctr±gauc_minus_srp4ctr_se:+.4f",
    "FLOPs 1": "flops_1:,.0f",
    "100": "flops_100:,.0f",
}


def rows_of(results: Iterable[Result], seeds: Mapping[str, int]) -> list[Row]:
    """Return a row per data set, variant and share of the labels.

    ``seeds`` says how many of each variant were to run: ``seeds_failed`` are the others.
    """
    grouped: dict[tuple[str, str, float], dict[int, Result]] = {}
    for result in results:
        for data in result["figures"]:
            key = (data, result["arm"], result["label_share"])
            grouped.setdefault(key, {})[result["seed"]] = result
    return [
        _row(key, by_seed, grouped.get((key[0], REFERENCE, key[2]), {}), seeds[key[1]])
        for key, by_seed in grouped.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as two tables per data set: all impressions, then kinds of them."""
    lines: list[str] = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        kinds = {
            f"{name.replace('_', ' ')} ({own[0][f'{name}_impressions']:,.0f})": name
            for name in BUCKETS
        }
        of_kinds = {head: f"{name}_auc:.4f" for head, name in kinds.items()}
        lines += ["", f"{data}: {own[0]['impressions']:,.0f} impressions judge"]
        lines += [figures.table(own, COLUMNS), "", f"{data}: AUC by kind of impression"]
        lines += [figures.table(own, {"model": "model", **of_kinds})]
    return "\n".join(lines)


def _row(
    key: tuple[str, str, float],
    by_seed: Mapping[int, Result],
    reference: Mapping[int, Result],
    num_seeds: int,
) -> Row:
    data, variant, share = key
    every = list(by_seed.values())
    found = {seed: result["figures"][data] for seed, result in by_seed.items()}
    row: Row = {
        "data": data,
        "model": variant if share == 1.0 else f"{variant}@{share:.0%}",
        "hr10": None,
        "ndcg10": None,
        "seeds": len(every),
        "seeds_failed": num_seeds - len(every),
        "flops_1": every[0]["flops"].get("1"),
        "flops_100": every[0]["flops"].get("100"),
        "meaning": VARIANTS[variant].meaning,
        "chosen": every[0]["chosen"],
        "seconds": {
            stage: figures.mean([result["seconds"][stage] for result in every])
            for stage in every[0]["seconds"]
        },
    }
    for name in next(iter(found.values())):
        row[name] = figures.mean([each[name] for each in found.values()])
    for name in PAIRED:
        row[f"{name}_se"] = figures.error([each[name] for each in found.values()])
        differences = [
            _minus(each[name], reference[seed]["figures"][data][name])
            for seed, each in found.items()
            if seed in reference and variant != REFERENCE
        ]
        row[f"{name}_minus_srp4ctr"] = figures.mean(differences)
        row[f"{name}_minus_srp4ctr_se"] = figures.error(differences)
    return row


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
