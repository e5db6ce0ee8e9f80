"""The contents of a report → its tables: a row a version, figures with their intervals.

And a row a pair, where more than two versions were compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite

from srp4ctr.monitoring.report import number_format
from srp4ctr.monitoring.report.number_format import (
    count,
    decimal,
    estimate,
    money,
    percent,
    seconds,
)
from srp4ctr.monitoring.report.report_contents import Contents, VersionFigures

MOST_PAIRS = 8
VERDICTS = {1: "better", 0: "not known yet", -1: "worse"}
Cell = Callable[[VersionFigures], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under names of columns; and how to read them."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each as long as ``columns``; the first cell is the version."""


def tables(contents: Contents) -> Iterator[Table]:
    """Yield the tables, what is earned first."""
    if len(contents.contrasts) > 1:
        yield _pairs(contents)
    yield _clicks(contents)
    yield _scores(contents)
    yield _cost(contents)
    yield _speed(contents)


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
            VERDICTS[each.verdict],
        )
        for each in contents.contrasts[:MOST_PAIRS]
    )
    return Table(
        title="Against each other",
        note=(
            "CTR at position 1 of the newer version less that of the older, over all ten "
            "minutes in which both served. The 95 % intervals hold however often one looks."
        ),
        columns=(
            "Version",
            "Against",
            "Difference, percentage points",
            "Impressions",
            "It is",
        ),
        rows=tuple(rows),
    )


def _clicks(contents: Contents) -> Table:
    note = (
        "CTR at position 1 is of what the version put first, the only place where its "
        "choice alone decides what is seen. In brackets: 95 % intervals."
    )
    cells: dict[str, Cell] = {
        "Impressions": lambda v: count(v.quality.impressions),
        "Clicks": lambda v: count(v.quality.clicks),
        "Of them at position 1": lambda v: count(v.quality.top_impressions),
        "CTR at position 1, %": lambda v: estimate(v.quality.top_click_rate, 1, 100),
        "CTR anywhere": lambda v: percent(v.quality.click_rate),
        "Labels known": lambda v: percent(v.quality.coverage),
    }
    return _table(contents, "Clicks", note, cells)


def _scores(contents: Contents) -> Table:
    note = (
        "Calibration is the sum of scores over clicks: 1 is honest, 2 promises twice too "
        "much; ECE is the mean error in ten bins. AUC: how often a clicked item had been "
        "scored above one passed over, 0.5 is chance. Normalised entropy is the log loss "
        "over that of the mean click rate alone: below 1 the model knows more, the lower "
        "the better."
    )
    cells: dict[str, Cell] = {
        "Normalised entropy": lambda v: decimal(v.quality.normalized_entropy, 3),
        "AUC": lambda v: estimate(v.quality.auc, 3),
        "Calibration": lambda v: estimate(v.quality.calibration, 2),
        "ECE": lambda v: decimal(v.quality.calibration_error, 4),
    }
    return _table(contents, "Scores", note, cells)


def _cost(contents: Contents) -> Table:
    currency = contents.grounds.currency
    note = (
        "CPU time of the serving processes at the price of a core-hour. Unfolded is what "
        "the same traffic would cost with the history encoded again for every candidate: "
        "an estimate, by FLOPs."
    )
    cells: dict[str, Cell] = {
        "Requests": lambda v: count(v.cost.requests),
        "Candidates a request": lambda v: number_format.significant(
            v.cost.candidates_per_request
        ),
        "Encoder runs a request": lambda v: decimal(v.cost.encoder_runs_per_request, 2),
        "CPU time of 1,000 candidates": lambda v: seconds(v.cost.cpu_s_per_1000_candidates),
        "Price of a million": lambda v: money(v.cost.price_per_million, currency),
        "The same, unfolded": lambda v: money(v.cost.unfolded_price_per_million, currency),
    }
    return _table(contents, "Cost", note, cells)


def _speed(contents: Contents) -> Table:
    note = (
        "Half of the answers take less than p50, 99 in 100 less than p99, in the server. "
        "PSI, the population stability index, says how far scores are spread otherwise "
        "than those it was judged on: above 0.2 they have moved."
    )
    cells: dict[str, Cell] = {
        "Answer time p50": lambda v: seconds(v.cost.p50_s),
        "Answer time p99": lambda v: seconds(v.cost.p99_s),
        "Score PSI": lambda v: decimal(v.inputs.score_psi, 3),
        "Unseen items": lambda v: _beside(
            v.inputs.unseen_items, v.inputs.unseen_items_in_training
        ),
        "Users without a history": lambda v: _beside(
            v.inputs.cold_users, v.inputs.cold_users_in_training
        ),
    }
    return _table(contents, "Speed and inputs", note, cells)


def _beside(live: float, in_training: float) -> str:
    if not isfinite(in_training):
        return percent(live)
    return f"{percent(live)} ({percent(in_training)} in training)"
