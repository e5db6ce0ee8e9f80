"""The contents of a report → its tables: one row per version, pair of versions or alert."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite

from srp4ctr.monitoring.report.number_format import (
    UNKNOWN,
    count,
    decimal,
    duration,
    estimate,
    money,
    percent,
    seconds,
    significant,
)
from srp4ctr.monitoring.report.period import Period, utc_minute
from srp4ctr.monitoring.report.report_contents import (
    Contents,
    FiredAlert,
    VersionFigures,
)

MAX_PAIRS = 8
CLOCK_TOLERANCE_S = 1.0  # Prometheus rounds times to milliseconds
CONCLUSIONS = {1: "better", 0: "not significant", -1: "worse"}
Cell = Callable[[VersionFigures], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under names of columns, and a note on how to read them."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each as long as ``columns``; the first cell is the version."""


def tables(contents: Contents) -> Iterator[Table]:
    """Yield the tables of versions, clicks first."""
    if len(contents.comparisons) > 1:
        yield _pairs(contents)
    yield _clicks(contents)
    yield _scores(contents)
    yield _cost(contents)
    yield _latency(contents)


def alert_table(contents: Contents) -> Table:
    """Return the alerts that fired."""
    return Table(
        title="Alerts",
        note="",
        columns=("Alert", "Labels", "Severity", "Fired (UTC)", "Total"),
        rows=tuple(_alert_row(each, contents.scope.period) for each in contents.alerts),
    )


def _alert_row(alert: FiredAlert, period: Period) -> tuple[str, ...]:
    labels = ", ".join(
        value if name == "model_version" else f"{name} {value}"
        for name, value in sorted(alert.labels.items())
    )
    first, last = utc_minute(alert.first_s), utc_minute(alert.last_s)
    is_over = alert.last_s < period.end_s - CLOCK_TOLERANCE_S
    return (
        alert_title(alert.name),
        labels or UNKNOWN,
        alert.severity or UNKNOWN,
        f"{first} to {last}" if is_over else f"since {first}, still firing",
        duration(alert.firing_s),
    )


def alert_title(name: str) -> str:
    """Return ``Srp4ctrCalibrationDrift`` as ``Calibration drift``."""
    words = re.findall(r"[A-Z]?[^A-Z]+|[A-Z]+(?![^A-Z])", name.removeprefix("Srp4ctr"))
    return " ".join(words).lower().capitalize()


def _table(contents: Contents, title: str, note: str, cells: dict[str, Cell]) -> Table:
    return Table(
        title=title,
        note=note,
        columns=("Version", *cells),
        rows=tuple(
            (each.version, *(cell(each) for cell in cells.values()))
            for each in contents.versions
        ),
    )


def _pairs(contents: Contents) -> Table:
    rows = (
        (
            each.version,
            each.reference,
            estimate(each.difference, 2, 100),
            f"{count(each.impressions)} of {each.counted}",
            CONCLUSIONS[each.direction],
        )
        for each in contents.comparisons[:MAX_PAIRS]
    )
    difference = "Difference, percentage points"
    return Table(
        title="Pairwise comparison",
        note=(
            "CTR at position 1 of the newer version minus that of the older, over all "
            "ten-minute slots in which both served. In brackets: anytime-valid 95 % "
            "confidence sequences."
        ),
        columns=("Version", "Compared with", difference, "Impressions", "Result"),
        rows=tuple(rows),
    )


def _clicks(contents: Contents) -> Table:
    note = (
        "CTR at position 1 covers what each version ranked first: the only "
        "position at which the ranking decides what users see. In brackets: 95 % intervals."
    )
    cells: dict[str, Cell] = {
        "Impressions": lambda v: count(v.quality.impressions),
        "Clicks": lambda v: count(v.quality.clicks),
        "Impressions at position 1": lambda v: count(v.quality.top_impressions),
        "CTR at position 1, %": lambda v: estimate(v.quality.top_click_rate, 1, 100),
        "CTR, all positions": lambda v: percent(v.quality.click_rate),
        "Label coverage": lambda v: percent(v.quality.label_coverage),
    }
    return _table(contents, "Clicks", note, cells)


def _scores(contents: Contents) -> Table:
    note = (
        "Calibration is the sum of scores divided by clicks: 1 = calibrated, 1.5 "
        "over-predicts by 50 %. ECE is the mean calibration error in ten bins. AUC is the "
        "probability that a clicked item was scored above one without a click; 0.5 is "
        "chance. Normalised entropy is the log loss divided by that of predicting the "
        "mean click rate: lower is better, and 1 is no better than the mean."
    )
    cells: dict[str, Cell] = {
        "Normalised entropy": lambda v: decimal(v.quality.normalized_entropy, 3),
        "AUC": lambda v: estimate(v.quality.auc, 3),
        "Calibration": lambda v: estimate(v.quality.calibration, 2),
        "ECE": lambda v: decimal(v.quality.calibration_error, 4),
    }
    return _table(contents, "Scores", note, cells)


def _cost(contents: Contents) -> Table:
    currency = contents.scope.currency
    note = (
        "CPU time of the serving processes at the price per core-hour. The last column "
        "estimates, by FLOPs, the price of the same traffic if the history were encoded "
        "again for each candidate."
    )
    cells: dict[str, Cell] = {
        "Requests": lambda v: count(v.cost.requests),
        "Candidates per request": lambda v: significant(v.cost.candidates_per_request),
        "Encoder runs per request": lambda v: decimal(v.cost.encoder_runs_per_request, 2),
        "CPU time per 1,000 candidates": lambda v: seconds(
            v.cost.cpu_s_per_1000_candidates
        ),
        "Price per million candidates": lambda v: money(v.cost.price_per_million, currency),
        "Re-encoding per candidate": lambda v: money(
            v.cost.reencoded_price_per_million, currency
        ),
    }
    return _table(contents, "Cost", note, cells)


def _latency(contents: Contents) -> Table:
    note = (
        "Latency is measured in the server. PSI, the population stability index, compares "
        "the distribution of scores with that of the evaluation: above 0.2 it has shifted."
    )
    cells: dict[str, Cell] = {
        "Latency p50": lambda v: seconds(v.cost.p50_s),
        "Latency p99": lambda v: seconds(v.cost.p99_s),
        "Score PSI": lambda v: decimal(v.inputs.score_psi, 3),
        "Unseen items": lambda v: _with_training(
            v.inputs.unseen_items, v.inputs.unseen_items_in_training
        ),
        "Users without a history": lambda v: _with_training(
            v.inputs.cold_users, v.inputs.cold_users_in_training
        ),
    }
    return _table(contents, "Latency and inputs", note, cells)


def _with_training(live: float, in_training: float) -> str:
    if not isfinite(in_training):
        return percent(live)
    return f"{percent(live)} ({percent(in_training)} in training)"
