"""Rows of one data set → a panel of a plot: quality against cost, few labels, ablations."""

import math
from collections.abc import Iterable, Mapping

from matplotlib.axes import Axes
from matplotlib.ticker import Formatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from benchmarks.quality.clicks.variants import REFERENCE
from benchmarks.report.evidence_labels import Label, Panel
from benchmarks.report.evidence_rows import (
    WITHOUT_PRETRAINING,
    Evidence,
    Row,
    model_of,
    number,
    plain,
    share_of,
    unfolded_flops,
)

BLUE, ORANGE, BLACK, PURPLE = "#0072b2", "#d55e00", "#222222", "#aa4499"
LOOKS = {REFERENCE: (BLUE, "o"), WITHOUT_PRETRAINING: (ORANGE, "s")}
OTHERS = ((BLACK, "D"), ("#009e73", "^"), ("#cc79a7", "v"), ("#56b4e9", "P"))


class Digits(Formatter):
    """As many digits as a scale's steps need, the same for all of them."""

    def __init__(self, sign: str = "") -> None:
        self.sign = sign

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return a single value."""
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Iterable[float]) -> list[str]:
        """Return the scale's values."""
        found = [round(float(value), 9) for value in values]
        needed = [n for n in range(2, 9) if all(round(v, n) == v for v in found)]
        digits = needed[0] if needed else 9
        return [plain(v, digits, self.sign) if v else "0" for v in found]


def points(of: Evidence) -> list[Row]:
    """Return the models that have a gAUC and a count of FLOPs."""
    return [r for r in of.models if None not in (number(r, "gauc"), _millions(r))]


def _levels(of: Evidence) -> list[Row]:
    """Return the models whose FLOPs nobody counts: trees."""
    rows = [row for row in of.models if number(row, "gauc") is not None]
    return [row for row in rows if _millions(row) is None]


def _millions(row: Row) -> float | None:
    flops = number(row, "flops_100")
    return None if not flops else flops / 1e6


def cost_panel(axes: Axes, of: Evidence) -> None:
    """Draw gAUC by FLOPs: a point a model, an arrow to SRP4CTR unfolded, a line a tree."""
    axes.set_xscale("log")
    for row in _levels(of):
        value, error = row["gauc"], number(row, "gauc_se") or 0.0
        axes.axhspan(value - error, value + error, color=PURPLE, alpha=0.12, linewidth=0)
        axes.axhline(value, color=PURPLE, linestyle=(0, (5, 3)))
    for row in points(of):
        colour, marker = _look(row)
        axes.errorbar(
            row["flops_100"] / 1e6,
            row["gauc"],
            number(row, "gauc_se") or 0.0,
            color=colour,
            marker=marker,
            zorder=3.0 if row["model"] in LOOKS else 2.0,
        )
    if (end := _unfolded(of)) is not None:
        axes.annotate("", end, _folded(of), arrowprops=_ARROW)
        axes.plot(*end, color=BLUE, marker="o", markerfacecolor="white")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.margins(y=0.15)
    steps = (1.0,) if high > 300.0 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("MFLOPs for 100 candidates (log scale)")
    _say(axes, "gAUC")


_ARROW = {"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.0, "shrinkA": 4, "shrinkB": 4}


def name_points(axes: Axes, of: Evidence) -> None:
    """Write the models' names into a finished panel of ``cost_panel``."""
    panel, (left, right) = Panel(axes=axes), axes.get_xlim()
    for row in _levels(of):
        panel.keep_free((left, right), (row["gauc"], row["gauc"]), 1.5)
    for row in points(of):
        x, y, error = row["flops_100"] / 1e6, row["gauc"], number(row, "gauc_se") or 0.0
        panel.mark(x, y, error)
    names: list[Label] = []
    if (end := _unfolded(of)) is not None:
        folded = _folded(of)
        panel.keep_free((folded[0], end[0]), (folded[1], end[1]), 4.0)
        said = f"unfolded, {end[0] / folded[0]:.0f}×"
        names.append(Label(text=said, x=end[0], y=end[1], colour=BLUE))
    for row in points(of):
        x, y = row["flops_100"] / 1e6, row["gauc"]
        names.append(Label(text=row["model"], x=x, y=y, colour=_look(row)[0]))
    for row in _levels(of):
        y = row["gauc"]
        line = Label(text=row["model"], x=left, y=y, colour=PURPLE, is_line=True)
        names.append(line)
    panel.name(names)


def _folded(of: Evidence) -> tuple[float, float]:
    return of.reference["flops_100"] / 1e6, of.reference["gauc"]


def _unfolded(of: Evidence) -> tuple[float, float] | None:
    """Return where SRP4CTR would stand if it encoded the history for each candidate."""
    flops = unfolded_flops(of.reference)
    if flops is None or of.reference not in points(of):
        return None
    return flops / 1e6, of.reference["gauc"]


def curve_panel(axes: Axes, of: Evidence) -> None:
    """Draw gAUC, or HR@10, by share of the click labels, a line a model."""
    metric, error = ("hr10", "hr10_error") if of.is_of_last_items else ("gauc", "gauc_se")
    shares: set[float] = set()
    middle = (len(of.curves) - 1) / 2.0
    for place, (model, rows) in enumerate(of.curves.items()):
        colour, marker = LOOKS.get(model, OTHERS[place % len(OTHERS)])
        found = [100.0 * share_of(row) for row in rows]
        shares |= set(found)
        aside = 1.03 ** (place - middle)  # error bars beside each other
        axes.errorbar(
            [share * aside for share in found],
            [number(row, metric) or math.nan for row in rows],
            [number(row, error) or 0.0 for row in rows],
            color=colour,
            marker=marker,
            label={REFERENCE: "pre-trained", WITHOUT_PRETRAINING: "not pre-trained"}.get(
                model, model
            ),
        )
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(shares), [f"{share:g} %" for share in sorted(shares)])
    axes.margins(x=0.1, y=0.12)
    axes.set_xlabel("click labels to learn from (log scale)")
    axes.legend(frameon=False)
    _say(axes, "HR@10" if of.is_of_last_items else "gAUC")


def dots_panel(axes: Axes, of: Evidence, meanings: Mapping[str, str]) -> None:
    """Draw a line for each of ``meanings``: all panels have the same."""
    less, places = f"gauc_minus_{REFERENCE}", list(meanings)
    axes.axvline(0.0, color=BLUE, linewidth=1.4)
    for row in differences(of):
        colour, marker = _look(row)
        place, error = places.index(row["model"]), number(row, f"{less}_se") or 0.0
        axes.errorbar(row[less], place, xerr=error, color=colour, marker=marker)
    axes.set_yticks(range(len(places)), list(meanings.values()))
    axes.set_ylim(len(places) - 0.5, -0.5)  # the first on top
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(Digits("+"))
    axes.set_xlabel("gAUC − SRP4CTR's")


def differences(of: Evidence) -> list[Row]:
    """Return the ablations that share a seed with SRP4CTR."""
    less = f"gauc_minus_{REFERENCE}"
    return [row for row in of.ablations if number(row, less) is not None]


def _look(row: Row) -> tuple[str, str]:
    return LOOKS.get(model_of(row), OTHERS[0])


def _say(axes: Axes, metric: str) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(Digits())
    axes.set_ylabel(f"{metric} ± standard error")
