"""Results of many seeds → a table per data set, and the rows of ``results/``.

Each figure is the mean over the seeds with its standard error; a difference from SRP4CTR
is the mean of the differences of equal seeds, which leaves out what both share.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.quality.clicks.variants import REFERENCE, VARIANTS

Result = Mapping[str, Any]
Row = dict[str, Any]
PAIRED = ("auc", "gauc", "log_loss")
BUCKETS = ("tail", "new_items", "no_history", "short_history", "long_history")


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
        lines += ["", f"{data}: {own[0]['impressions']:,.0f} impressions judge", _HEAD]
        lines += [_line(row) for row in own]
        lines += ["", f"{data}: AUC by kind of impression", _bucket_head(own[0])]
        lines += [_bucket_line(row) for row in own]
    return "\n".join(lines)


def _row(
    key: tuple[str, str, float],
    by_seed: Mapping[int, Result],
    reference: Mapping[int, Result],
    num_seeds: int,
) -> Row:
    data, variant, share = key
    every = list(by_seed.values())
    figures = [result["figures"][data] for result in every]
    row: Row = {
        "data": data,
        "model": variant if share == 1.0 else f"{variant}@{share:.0%}",
        "hr10": None,
        "ndcg10": None,
        "seeds": len(every),
        "seeds_failed": num_seeds - len(every),
        "flops_1": every[0]["flops"].get("1"),
        "flops_100": every[0]["flops"].get("100"),
        "meaning": _meaning(variant, every[0]),
        "chosen": every[0]["chosen"],
        "seconds": {
            stage: _mean([result["seconds"][stage] for result in every])
            for stage in every[0]["seconds"]
        },
    }
    for name in figures[0]:
        row[name] = _mean([each[name] for each in figures])
    for name in PAIRED:
        row[f"{name}_se"] = _error([each[name] for each in figures])
        differences = [
            _minus(result["figures"][data][name], reference[seed]["figures"][data][name])
            for seed, result in by_seed.items()
            if seed in reference and variant != REFERENCE
        ]
        row[f"{name}_minus_srp4ctr"] = _mean(differences)
        row[f"{name}_minus_srp4ctr_se"] = _error(differences)
    return row


def _meaning(variant: str, result: Result) -> str:
    """Return what the variant is; a peer, which is no variant of ours, says so itself."""
    return str(result["meaning"]) if "meaning" in result else VARIANTS[variant].meaning


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where one is undefined: no seed is left out silently."""
    found = [value for value in values if value is not None]
    if not found or len(found) < len(values):
        return None
    return round(float(np.mean(found)), 6)


def _error(values: Sequence[float | None]) -> float | None:
    """Return the standard error of the mean; None below two seeds."""
    found = [value for value in values if value is not None]
    if len(found) < 2 or len(found) < len(values):
        return None
    return round(float(np.std(found, ddof=1)) / math.sqrt(len(found)), 6)


_HEAD = (
    f"  {'model':<28}{'seeds':>6}{'AUC':>16}{'gAUC':>16}{'log loss':>16}{'NE':>7}"
    f"{'p / y':>7}{'gAUC - srp4ctr':>18}{'train s':>9}{'MFLOPs 1':>10}{'100':>9}"
)


def _line(row: Row) -> str:
    failed = row["seeds_failed"]
    seeds = f"{row['seeds']}" + (f" (-{failed})" if failed else "")
    parts = [f"  {row['model']:<28}{seeds:>6}"]
    parts += [f"{_with_error(row, name):>16}" for name in PAIRED]
    parts += [
        f"{_fixed(row['normalised_entropy'], 3):>7}{_fixed(row['calibration'], 3):>7}"
    ]
    parts += [f"{_with_error(row, 'gauc_minus_srp4ctr', '+'):>18}"]
    parts += [f"{sum(row['seconds'].values()):>9.0f}"]
    parts += [f"{_millions(row['flops_1']):>10}{_millions(row['flops_100']):>9}"]
    return "".join(parts)


def _bucket_head(row: Row) -> str:
    names = [
        f"{name.replace('_', ' ')} ({row[f'{name}_impressions']:,.0f})" for name in BUCKETS
    ]
    return f"  {'':<28}" + "".join(f"{name:>24}" for name in names)


def _bucket_line(row: Row) -> str:
    found = [_fixed(row[f"{name}_auc"], 4) for name in BUCKETS]
    return f"  {row['model']:<28}" + "".join(f"{each:>24}" for each in found)


def _with_error(row: Row, name: str, sign: str = "") -> str:
    if row[name] is None:
        return "-"
    error = row[f"{name}_se"]
    value = f"{row[name]:{sign}.4f}"
    return value if error is None else f"{value} ± {error:.4f}"


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _millions(flops: int | None) -> str:
    return "-" if flops is None else f"{flops / 1e6:.2f}"
