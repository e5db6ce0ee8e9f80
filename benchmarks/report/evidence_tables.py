"""Result files → rows per data set → Markdown tables.

A value that is absent, null or NaN is shown as an en dash. Differences from SRP4CTR are
means of the differences at equal seeds.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.clicks.click_report import BUCKETS, PAIRED
from benchmarks.quality.clicks.variants import REFERENCE

Row = Mapping[str, Any]
WITHOUT_PRETRAINING = f"{REFERENCE}-none"
ABLATION = f"{REFERENCE}-"  # how the names of its variants begin
TITLES = {
    "ebnerd": "EB-NeRD",
    **dict.fromkeys(("movielens", "ml-100k"), "MovieLens-100K"),
    "Beauty, attribute masks": "Amazon Beauty",
    "Beauty, two scores": "Amazon Beauty, without attribute masks",
    "Beauty": "Amazon Beauty, by one score, without attribute masks",
}
SIZED, FROZEN = "+size", " frozen"
METRICS = {"hr10": "HR@10", "auc": "AUC", "gauc": "gAUC"}
MAX_SAMPLING_ERROR = 0.01  # of gAUC: EB-NeRD has 0.002, KuaiRand-Pure, a feed, 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The rows of one benchmark on one data set, in the file's order."""

    source: str
    """Name of the data set in the result file."""
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Name of the data set for readers."""
        name = self.source.removesuffix(FROZEN).removesuffix(SIZED)
        sized = ", slate size known" if SIZED in self.source else ""
        frozen = ", features frozen" if self.source.endswith(FROZEN) else ""
        return TITLES.get(name, name) + sized + frozen

    @property
    def reference(self) -> Row:
        """Row of SRP4CTR, empty if it did not run."""
        return self.of(REFERENCE)

    @property
    def models(self) -> list[Row]:
        """Rows of models trained on all labels, without ablations, the best first."""
        rows = [row for row in self.rows if share_of(row) == 1.0]
        kept = [
            row
            for row in rows
            if not _is_ablation(row) or model_of(row) == WITHOUT_PRETRAINING
        ]
        return best_first(kept, self.metric)

    @property
    def ablations(self) -> list[Row]:
        """Rows of SRP4CTR's variants, without SRP4CTR itself."""
        return [row for row in self.rows if share_of(row) == 1.0 and _is_ablation(row)]

    @property
    def curves(self) -> dict[str, list[Row]]:
        """Rows by share of the labels, for each model that ran with few."""
        with_few = {model_of(row) for row in self.rows if share_of(row) < 1.0}
        found: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=share_of):
            if model_of(row) in with_few:
                found.setdefault(model_of(row), []).append(row)
        return dict(sorted(found.items()))

    @property
    def is_of_last_items(self) -> bool:
        """Whether a user's last item was ranked, so that HR@10 is the metric."""
        return any(number(row, "hr10") is not None for row in self.rows)

    @property
    def metric(self) -> str:
        """Key of ``METRICS`` by which models are ordered.

        In a feed it is AUC, because a request with one candidate has no order.
        """
        if self.is_of_last_items:
            return "hr10"
        errors = [number(row, "gauc_sampling_error") or 0.0 for row in self.rows]
        return "auc" if max(errors, default=0.0) > MAX_SAMPLING_ERROR else "gauc"

    def of(self, model: str) -> Row:
        """Return the row of ``model``, empty if it did not run."""
        return next((row for row in self.rows if row["model"] == model), {})


def read(file: Path) -> list[Evidence]:
    """Return the rows in ``file`` per data set; none if the file does not exist."""
    rows: list[Row] = json.loads(file.read_text())["rows"] if file.is_file() else []
    return [
        Evidence(source=source, rows=tuple(row for row in rows if row["data"] == source))
        for source in sorted({row["data"] for row in rows})
    ]


def number(row: Row, name: str) -> float | None:
    """Return the value ``name`` of ``row``, or None."""
    value = row.get(name)
    return None if value is None or math.isnan(value) else float(value)


def model_of(row: Row) -> str:
    """Return the model without its share of the labels."""
    return str(row["model"]).partition("@")[0]


def share_of(row: Row) -> float:
    """Return the share of the labels that the row's model was trained on."""
    share = str(row["model"]).partition("@")[2]
    return float(share.rstrip("%")) / 100.0 if share else 1.0


def tiled_flops(row: Row) -> float | None:
    """Return the FLOPs of 100 candidates that share nothing, as in ``count_flops``."""
    one = number(row, "flops_1")
    return None if one is None else 100.0 * one


def best_first(rows: list[Row], name: str) -> list[Row]:
    """Return ``rows`` by falling ``name``, rows without it last."""
    return sorted(rows, key=lambda row: (-(number(row, name) or 0.0), row["model"]))


def plain(value: float | None, digits: int = 4, sign: str = "") -> str:
    """Return ``value`` for a table: 0.8142, −0.0003, 1.013; an en dash for None."""
    return "–" if value is None else f"{value:{sign}.{digits}f}".replace("-", "−")


def with_error(row: Row, name: str, error: str, sign: str = "") -> str:
    """Return the value called ``name``, with its error if there is one."""
    value, spread = number(row, name), number(row, error)
    found = plain(value, sign=sign)
    return found if value is None or spread is None else f"{found} ± {plain(spread)}"


def _is_ablation(row: Row) -> bool:
    return model_of(row).startswith(ABLATION)


# HR@10 and NDCG@10 in S3-Rec's paper (CIKM 2020), by its protocol, on its Beauty files.
PUBLISHED: dict[str, tuple[Row, ...]] = {
    "Beauty, attribute masks": (
        {"model": "SASRec, published", "hr10": 0.4696, "ndcg10": 0.3156},
        {"model": "BERT4Rec, published", "hr10": 0.4739, "ndcg10": 0.2975},
        {"model": "FDSA, published", "hr10": 0.5096, "ndcg10": 0.3324},
        {"model": "S3-Rec, published", "hr10": 0.5506, "ndcg10": 0.3732},
    )
}
GROUPS = ("short_history", "long_history", "long_tail", "head")
TEXTS = ("model", "what it is")  # columns that are aligned on the left
Columns = Mapping[str, Callable[[Row], str]]


def quality(of: Evidence) -> str:
    """Return every model's quality and cost."""
    names = {"NE": "normalised_entropy", "p / y": "calibration"}
    shares = {head: _plain(name, 3) for head, name in names.items()}
    columns = {**_NAMED, "seeds": _seeds, **_MEANS, **shares}
    name = f"{METRICS[of.metric]} − SRP4CTR"
    columns |= {name: _difference(of.metric), **_COST}
    return _table(columns, of.models)


def kinds(of: Evidence) -> str:
    """Return every model's AUC by kind of impression."""
    first = of.reference or next(iter(of.models), {})
    heads = {
        name: f"{_said(name)} ({_whole(number(first, f'{name}_impressions'))})"
        for name in BUCKETS
    }
    columns = {head: _plain(f"{name}_auc") for name, head in heads.items()}
    return _table({"model": _model, **columns}, of.models)


def ablations(of: Evidence) -> str:
    """Return SRP4CTR, then its variants with their differences from it."""
    columns = {**_NAMED, "seeds": _seeds, "gAUC": _MEANS["gAUC"]}
    columns |= {f"{head} − SRP4CTR": _difference(name) for head, name in _PAIRED.items()}
    reference = [of.reference] if of.reference else []
    return _table({**columns, **_COST}, [*reference, *of.ablations])


def shares(of: Evidence) -> str:
    """Return the learning curve: a row per model and share of the click labels."""
    name = f"{METRICS[of.metric]} − SRP4CTR"
    columns = {**_SHARE, "seeds": _seeds, **_MEANS, name: _difference(of.metric)}
    return _table(columns, [row for rows in of.curves.values() for row in rows])


def last_item(of: Evidence) -> str:
    """Return the table of users' last items, published figures included."""
    whole = [row for row in of.rows if share_of(row) == 1.0]
    rows = best_first([*whole, *PUBLISHED.get(of.source, ())], "hr10")
    return _table({"model": _model, **_LAST_ITEM}, rows)


def last_item_shares(of: Evidence) -> str:
    """Return the learning curve: a row per model and share of the slates."""
    rows = [row for rows in of.curves.values() for row in rows]
    return _table({**_SHARE, **_LAST_ITEM}, rows)


def _plain(name: str, digits: int = 4) -> Callable[[Row], str]:
    return lambda row: plain(number(row, name), digits)


def _mean(name: str, error: str, sign: str = "") -> Callable[[Row], str]:
    return lambda row: with_error(row, name, error, sign)


def _difference(name: str) -> Callable[[Row], str]:
    less = f"{name}_minus_{REFERENCE}"
    return _mean(less, f"{less}_se", "+")


def _hits_less(row: Row) -> str:
    is_reference = model_of(row) == REFERENCE
    return "–" if is_reference else with_error(row, "hr10_less", "hr10_less_error", "+")


def _cpu_s(row: Row) -> str:
    seconds = row.get("seconds") or {}
    found = [number(seconds, stage) for stage in seconds]
    values = [value for value in found if value is not None]
    return _whole(sum(values) if values and len(values) == len(found) else None)


def _model(row: Row) -> str:
    if "seeds" not in row:  # published
        return f"*{row['model']}*"
    name = f"`{row['model']}`"
    return f"**{name}**" if model_of(row) == REFERENCE else name


def _meaning(row: Row) -> str:
    return str(row.get("meaning") or "–").rstrip(".").replace("|", "\\|")


def _seeds(row: Row) -> str:
    failed = row.get("seeds_failed")
    return _whole(number(row, "seeds")) + (f" ({failed} failed)" if failed else "")


def _said(name: str) -> str:
    return {"tail": "long tail"}.get(name, name.replace("_", " "))


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _millions(name: str) -> Callable[[Row], str]:
    def shown(row: Row) -> str:
        flops = number(row, name)
        if flops is None:
            return "–"
        digits = next((n for n, least in enumerate((1e8, 1e7, 1e5)) if flops >= least), 4)
        return plain(flops / 1e6, digits)

    return shown


_NAMED: Columns = {"model": _model, "what it is": _meaning}
_SHARE: Columns = {
    "model": lambda row: f"`{model_of(row)}`",
    "labels": lambda row: f"{share_of(row):.0%}",
}
_PAIRED = dict(zip(("AUC", "gAUC", "log loss"), PAIRED, strict=True))
_MEANS = {head: _mean(name, f"{name}_se") for head, name in _PAIRED.items()}
_COST = {"CPU s": _cpu_s, **{f"MFLOPs, {n}": _millions(f"flops_{n}") for n in (1, 100)}}
_LAST_ITEM: Columns = {
    "seeds": _seeds,
    "HR@10": _mean("hr10", "hr10_error"),
    "NDCG@10": _mean("ndcg10", "ndcg10_error"),
    "HR@10 − SRP4CTR": _hits_less,
    **{f"HR@10, {_said(name)}": _plain(f"hr10_{name}") for name in GROUPS},
}


def _table(columns: Columns, rows: Sequence[Row]) -> str:
    """Return a Markdown table; numbers are aligned on the right."""
    rules = ["---" if name in TEXTS else "---:" for name in columns]
    cells = [[shown(row) for shown in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, rules, *cells])
