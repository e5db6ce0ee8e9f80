"""Rows of evidence → GitHub's tables: quality and cost, kinds of impression, ablations.

The differences from SRP4CTR are means of the differences of equal seeds.
"""

from collections.abc import Sequence

from benchmarks.quality.clicks.click_report import BUCKETS, PAIRED
from benchmarks.quality.clicks.variants import REFERENCE
from benchmarks.report.evidence_rows import (
    Evidence,
    Row,
    best_first,
    model_of,
    number,
    plain,
    share_of,
    with_error,
)

# Of S3-Rec's paper (CIKM 2020), by its protocol, on its files of Beauty: HR@10, NDCG@10.
PUBLISHED: dict[str, tuple[Row, ...]] = {
    "Beauty": (
        {"model": "SASRec, published", "hr10": 0.4696, "ndcg10": 0.3156},
        {"model": "BERT4Rec, published", "hr10": 0.4739, "ndcg10": 0.2975},
        {"model": "FDSA, published", "hr10": 0.5096, "ndcg10": 0.3324},
        {"model": "S3-Rec, published", "hr10": 0.5506, "ndcg10": 0.3732},
    )
}
GROUPS = ("short_history", "long_history", "long_tail", "head")
TEXTS = ("model", "what it is")  # the columns that are aligned on the left


def quality(of: Evidence) -> str:
    """Return every model's quality and cost."""
    head = [*TEXTS, "seeds", "AUC", "gAUC", "log loss", "NE", "p / y"]
    head += ["gAUC − SRP4CTR", "CPU s", "MFLOPs, 1", "MFLOPs, 100"]
    return _table(head, [_quality(row) for row in of.models])


def kinds(of: Evidence) -> str:
    """Return every model's AUC by kind of impression."""
    counts = {name: number(_first(of), f"{name}_impressions") for name in BUCKETS}
    head = ["model"]
    head += [f"{_said(name)} ({_whole(counts[name])})" for name in BUCKETS]
    rows = [
        [_model(row), *(plain(number(row, f"{name}_auc")) for name in BUCKETS)]
        for row in of.models
    ]
    return _table(head, rows)


def ablations(of: Evidence) -> str:
    """Return SRP4CTR, then its variants and how far each is from it."""
    head = [*TEXTS, "seeds", "gAUC", "AUC − SRP4CTR", "gAUC − SRP4CTR"]
    head += ["log loss − SRP4CTR", "CPU s", "MFLOPs, 1", "MFLOPs, 100"]
    reference = [of.reference] if of.reference else []
    rows = [
        [_model(row), _meaning(row), _seeds(row), with_error(row, "gauc", "gauc_se")]
        + [_difference(row, name) for name in PAIRED]
        + _cost(row)
        for row in [*reference, *of.ablations]
    ]
    return _table(head, rows)


def shares(of: Evidence) -> str:
    """Return the learning curve: a row per model and share of the click labels."""
    head = ["model", "labels", "seeds", "AUC", "gAUC", "log loss", "gAUC − SRP4CTR"]
    rows = [
        [f"`{model}`", f"{share_of(row):.0%}", _seeds(row)]
        + [with_error(row, name, f"{name}_se") for name in PAIRED]
        + [_difference(row, "gauc")]
        for model, rows in of.curves.items()
        for row in rows
    ]
    return _table(head, rows)


def last_item(of: Evidence) -> str:
    """Return the ranking of a user's last item, the published figures among it."""
    head = ["model", "seeds", "HR@10", "NDCG@10", "HR@10 − SRP4CTR"]
    head += [f"HR@10, {_said(name)}" for name in GROUPS]
    whole = [row for row in of.rows if share_of(row) == 1.0]
    rows = best_first([*whole, *PUBLISHED.get(of.source, ())], "hr10")
    return _table(head, [_last_item(row) for row in rows])


def last_item_shares(of: Evidence) -> str:
    """Return the learning curve: a row per model and share of the slates."""
    head = ["model", "labels", "seeds", "HR@10", "NDCG@10", "HR@10 − SRP4CTR"]
    head += [f"HR@10, {_said(name)}" for name in GROUPS]
    rows = [
        [f"`{model}`", f"{share_of(row):.0%}", *_last_item(row)[1:]]
        for model, rows in of.curves.items()
        for row in rows
    ]
    return _table(head, rows)


def _quality(row: Row) -> list[str]:
    return [
        *(_model(row), _meaning(row), _seeds(row)),
        *(with_error(row, name, f"{name}_se") for name in PAIRED),
        plain(number(row, "normalised_entropy"), 3),
        plain(number(row, "calibration"), 3),
        _difference(row, "gauc"),
        *_cost(row),
    ]


def _last_item(row: Row) -> list[str]:
    is_published = "seeds" not in row
    return [
        f"*{row['model']}*" if is_published else _model(row),
        _seeds(row),
        with_error(row, "hr10", "hr10_error"),
        with_error(row, "ndcg10", "ndcg10_error"),
        "–"
        if model_of(row) == REFERENCE
        else with_error(row, "hr10_less", "hr10_less_error", "+"),
        *(plain(number(row, f"hr10_{name}")) for name in GROUPS),
    ]


def _difference(row: Row, name: str) -> str:
    less = f"{name}_minus_{REFERENCE}"
    return with_error(row, less, f"{less}_se", "+")


def _cost(row: Row) -> list[str]:
    seconds = row.get("seconds") or {}
    found = [number(seconds, stage) for stage in seconds]
    known = [value for value in found if value is not None]
    whole = sum(known) if known and len(known) == len(found) else None
    return [_whole(whole), *(_millions(number(row, f"flops_{n}")) for n in (1, 100))]


def _model(row: Row) -> str:
    name = f"`{row['model']}`"
    return f"**{name}**" if model_of(row) == REFERENCE else name


def _meaning(row: Row) -> str:
    return str(row.get("meaning") or "–").rstrip(".").replace("|", "\\|")


def _seeds(row: Row) -> str:
    failed = row.get("seeds_failed")
    return _whole(number(row, "seeds")) + (f" ({failed} failed)" if failed else "")


def _first(of: Evidence) -> Row:
    return of.reference or next(iter(of.models), {})


def _said(name: str) -> str:
    return {"tail": "long tail"}.get(name, name.replace("_", " "))


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _millions(flops: float | None) -> str:
    if flops is None:
        return "–"
    digits = next((n for n, least in enumerate((1e8, 1e7, 1e5)) if flops >= least), 4)
    return plain(flops / 1e6, digits)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of GitHub's; numbers are aligned on the right."""
    rules = ["---" if name in TEXTS else "---:" for name in head]
    lines = [head, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
