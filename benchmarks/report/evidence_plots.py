"""Rows of evidence → three plots as SVG: quality against cost, few labels, ablations.

The same rows give the same bytes: no date, ids from a fixed salt. Text stays text, placed
by matplotlib's own font, which is a wide one: another on the reader's side covers less.
The colours are Okabe and Ito's, for colour-blind readers; shapes differ too.
"""

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import Formatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from benchmarks.quality.clicks.variants import REFERENCE
from benchmarks.report.evidence_labels import Label, write_labels
from benchmarks.report.evidence_rows import (
    WITHOUT_PRETRAINING,
    Evidence,
    Row,
    model_of,
    number,
    plain,
    share_of,
    tiled_flops,
)

BLUE, ORANGE, BLACK, PURPLE = "#0072b2", "#d55e00", "#222222", "#aa4499"
LOOKS = {REFERENCE: (BLUE, "o"), WITHOUT_PRETRAINING: (ORANGE, "s")}
OTHERS = ((BLACK, "D"), ("#009e73", "^"), ("#cc79a7", "v"), ("#56b4e9", "P"))
WIDTH, HEIGHT = 4.6, 3.3  # inches of a panel
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "srp4ctr",
    "figure.dpi": 72.0,  # a length on the screen is a length in points
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "errorbar.capsize": 2.5,
    "lines.markersize": 5.5,
    "lines.linewidth": 1.2,
}
Draw = Callable[[Axes, Evidence], None]


def quality_by_cost(evidence: Sequence[Evidence]) -> str | None:
    """Return gAUC against inference-FLOPs, a panel per data set; None: nothing to show."""
    shown = [of for of in evidence if any(_points(of))]
    return _drawn(shown, _cost_panel, names=_name_points)


def learning_curve(evidence: Sequence[Evidence]) -> str | None:
    """Return gAUC by share of the click labels; None: no model ran with few."""
    return _drawn([of for of in evidence if of.curves], _curve_panel)


def ablation_dots(evidence: Sequence[Evidence]) -> str | None:
    """Return how far each variant is from SRP4CTR; None: no variant ran."""
    shown = [of for of in evidence if _differences(of)]
    meanings = {row["model"]: row["meaning"] for of in shown for row in _differences(of)}
    return _drawn(shown, lambda axes, of: _dots_panel(axes, of, meanings), is_shared=True)


def _drawn(
    shown: Sequence[Evidence],
    draw: Draw,
    names: Draw | None = None,
    is_shared: bool = False,
) -> str | None:
    """Return the SVG of a panel each; ``names`` writes into panels whose place is final."""
    if not shown:
        return None
    columns = min(len(shown), 2)
    lines = -(-len(shown) // columns)
    with matplotlib.style.context(["default", STYLE]):
        size = (WIDTH * columns if columns > 1 else 1.4 * WIDTH, HEIGHT * lines)
        figure = Figure(
            figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        )
        grid = figure.subplots(lines, columns, squeeze=False, sharey=is_shared).ravel()
        for axes, of in zip_longest(grid.tolist(), shown):
            if of is None:
                axes.remove()
            else:
                axes.set_title(textwrap.fill(of.title, 34))
                draw(axes, of)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes, of in zip(grid, shown, strict=False):
            if names is not None:
                names(axes, of)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


class _Digits(Formatter):
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


def _points(of: Evidence) -> list[Row]:
    """Return the models that have a gAUC and a count of FLOPs."""
    return [r for r in of.models if None not in (number(r, "gauc"), _millions(r))]


def _levels(of: Evidence) -> list[Row]:
    """Return the models whose FLOPs are not counted: trees."""
    rows = [row for row in of.models if number(row, "gauc") is not None]
    return [row for row in rows if _millions(row) is None]


def _millions(row: Row) -> float | None:
    flops = number(row, "flops_100")
    return None if not flops else flops / 1e6


def _cost_panel(axes: Axes, of: Evidence) -> None:
    """Draw gAUC by FLOPs: a point per model, a line per tree, an arrow to re-encoding."""
    axes.set_xscale("log")
    for row in _levels(of):
        value, error = row["gauc"], number(row, "gauc_se") or 0.0
        axes.axhspan(value - error, value + error, color=PURPLE, alpha=0.12, linewidth=0)
        axes.axhline(value, color=PURPLE, linestyle=(0, (5, 3)))
    for row in _points(of):
        colour, marker = _look(row)
        axes.errorbar(
            row["flops_100"] / 1e6,
            row["gauc"],
            number(row, "gauc_se") or 0.0,
            color=colour,
            marker=marker,
            zorder=3.0 if row["model"] in LOOKS else 2.0,
        )
    if (end := _tiled(of)) is not None:
        axes.annotate("", end, _encoded_once(of), arrowprops=_ARROW)
        axes.plot(*end, color=BLUE, marker="o", markerfacecolor="white")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.margins(y=0.15)
    steps = (1.0,) if high > 300.0 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("MFLOPs for 100 candidates (log scale)")
    _name_scale(axes, "gAUC")


_ARROW = {"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.0, "shrinkA": 4, "shrinkB": 4}


def _name_points(axes: Axes, of: Evidence) -> None:
    """Write the models' names into a finished panel of ``_cost_panel``."""
    names, taken = [], []
    if (end := _tiled(of)) is not None:
        start = _encoded_once(of)
        taken.append(Bbox([start, end]))
        text = f"re-encoded, {end[0] / start[0]:.0f}×"
        names.append(Label(text=text, x=end[0], y=end[1], colour=BLUE))
    for row in _points(of):
        x, error = row["flops_100"] / 1e6, number(row, "gauc_se") or 0.0
        colour, _ = _look(row)
        names.append(
            Label(text=row["model"], x=x, y=row["gauc"], colour=colour, error=error)
        )
    left, _ = axes.get_xlim()
    for row in _levels(of):
        y = row["gauc"]
        names.append(Label(text=row["model"], x=left, y=y, colour=PURPLE, is_line=True))
    write_labels(axes, names, taken)


def _encoded_once(of: Evidence) -> tuple[float, float]:
    return of.reference["flops_100"] / 1e6, of.reference["gauc"]


def _tiled(of: Evidence) -> tuple[float, float] | None:
    """Return where SRP4CTR would be if it encoded the history for each candidate."""
    flops = tiled_flops(of.reference)
    if flops is None or of.reference not in _points(of):
        return None
    return flops / 1e6, of.reference["gauc"]


def _curve_panel(axes: Axes, of: Evidence) -> None:
    """Draw gAUC, or HR@10, by share of the click labels, a line per model."""
    metric, error = ("hr10", "hr10_error") if of.is_of_last_items else ("gauc", "gauc_se")
    shares: set[float] = set()
    middle = (len(of.curves) - 1) / 2.0
    for place, (model, rows) in enumerate(of.curves.items()):
        colour, marker = LOOKS.get(model, OTHERS[place % len(OTHERS)])
        found = [100.0 * share_of(row) for row in rows]
        shares |= set(found)
        aside = 1.03 ** (place - middle)  # error bars next to each other
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
    _name_scale(axes, "HR@10" if of.is_of_last_items else "gAUC")


def _dots_panel(axes: Axes, of: Evidence, meanings: Mapping[str, str]) -> None:
    """Draw a line for each of ``meanings``: all panels have the same."""
    less, places = f"gauc_minus_{REFERENCE}", list(meanings)
    axes.axvline(0.0, color=BLUE, linewidth=1.4)
    for row in _differences(of):
        colour, marker = _look(row)
        place, error = places.index(row["model"]), number(row, f"{less}_se") or 0.0
        axes.errorbar(row[less], place, xerr=error, color=colour, marker=marker)
    axes.set_yticks(range(len(places)), list(meanings.values()))
    axes.set_ylim(len(places) - 0.5, -0.5)  # the first on top
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(_Digits("+"))
    axes.set_xlabel("gAUC − SRP4CTR's")


def _differences(of: Evidence) -> list[Row]:
    """Return the ablations that share a seed with SRP4CTR."""
    less = f"gauc_minus_{REFERENCE}"
    return [row for row in of.ablations if number(row, less) is not None]


def _look(row: Row) -> tuple[str, str]:
    return LOOKS.get(model_of(row), OTHERS[0])


def _name_scale(axes: Axes, metric: str) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(_Digits())
    axes.set_ylabel(f"{metric} ± standard error")
