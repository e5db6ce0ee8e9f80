"""Rows of evidence → three plots as SVG: quality against cost, few labels, ablations.

The same rows give the same bytes: no date, ids from a fixed salt. Text stays text.
matplotlib places it by its own font, which is wide, so a reader's font covers less. The
colours are Okabe and Ito's, for colour-blind readers; shapes differ too.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from benchmarks.quality.clicks.variants import REFERENCE
from benchmarks.report.evidence_tables import (
    METRICS,
    WITHOUT_PRETRAINING,
    Evidence,
    Row,
    model_of,
    number,
    share_of,
    tiled_flops,
)

BLUE, ORANGE, BLACK, PURPLE = "#0072b2", "#d55e00", "#222222", "#aa4499"
OTHERS = ((BLACK, "D"), ("#009e73", "^"), ("#cc79a7", "v"), ("#56b4e9", "P"))
LINE_STYLES = {
    REFERENCE: (BLUE, "o"),
    WITHOUT_PRETRAINING: (ORANGE, "s"),
    **dict(zip(("din", "bst", "dcnv2", "sasrec"), OTHERS, strict=True)),
    "lr": ("#e69f00", "X"),
    "lightgbm": (PURPLE, "--"),
    "lightgbm-rank": (PURPLE, ":"),
    "lightgbm-history": (PURPLE, "-."),
}
_TREE_LINES = ("--", ":", "-.")
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
    """Return quality against FLOPs, a panel per data set; None without FLOPs."""
    shown = [of for of in evidence if any(map(_millions, of.models))]
    return _drawn(shown, _cost_panel)


def learning_curve(evidence: Sequence[Evidence]) -> str | None:
    """Return quality by share of the click labels; None if no model ran with few."""
    return _drawn([of for of in evidence if of.curves], _curve_panel)


def ablation_dots(evidence: Sequence[Evidence]) -> str | None:
    """Return the difference of each variant from SRP4CTR; None if no variant ran."""
    shown = [of for of in evidence if _differences(of)]
    meanings = {row["model"]: row["meaning"] for of in shown for row in _differences(of)}
    return _drawn(shown, lambda axes, of: _dots_panel(axes, of, meanings), is_shared=True)


def _drawn(shown: Sequence[Evidence], draw: Draw, is_shared: bool = False) -> str | None:
    """Return an SVG with a panel per data set and one legend."""
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
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(
                handles.values(),
                handles,
                loc="outside lower center",
                ncols=5,
                frameon=False,
            )
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _millions(row: Row) -> float | None:
    flops = number(row, "flops_100")
    return None if not flops else flops / 1e6


def _cost_panel(axes: Axes, of: Evidence) -> None:
    """Draw quality by FLOPs: a point per model, a line per tree, one arrow."""
    axes.set_xscale("log")
    metric = of.metric
    for row in of.models:
        value, error = number(row, metric), number(row, f"{metric}_se") or 0.0
        cost, (colour, line_style) = _millions(row), _line_style(row)
        if value is not None and cost is None:  # a tree's
            edges = value - error, value + error
            axes.axhspan(*edges, color=colour, alpha=0.12, linewidth=0)
            axes.axhline(value, color=colour, linestyle=line_style, label=row["model"])
        elif value is not None and cost is not None:
            axes.errorbar(
                cost,
                value,
                error,
                color=colour,
                marker=line_style,
                linestyle="none",
                label=row["model"],
            )
    _draw_reencoded(axes, of.reference, metric)
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.margins(y=0.15)
    steps = (1.0,) if high > 300.0 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("MFLOPs for 100 candidates (log scale)")
    _name_scale(axes, METRICS[metric])


def _draw_reencoded(axes: Axes, row: Row, metric: str) -> None:
    """Draw the cost of SRP4CTR if it encoded the history for each candidate."""
    cost, tiled, value = _millions(row), tiled_flops(row), number(row, metric)
    if cost is None or tiled is None or value is None:
        return
    start, end = (cost, value), (tiled / 1e6, value)
    arrow = {"arrowstyle": "-|>", "color": BLUE, "shrinkA": 4, "shrinkB": 4}
    axes.annotate("", end, start, arrowprops=arrow)
    text = f"re-encoded, {end[0] / start[0]:.0f}×"
    name = axes.annotate(text, end, (0.0, 8.0), textcoords="offset points")
    name.set(ha="right", color=BLUE, fontsize=8.0)
    axes.plot(*end, color=BLUE, marker="o", markerfacecolor="white")


def _curve_panel(axes: Axes, of: Evidence) -> None:
    """Draw quality by share of the click labels, a line per model."""
    metric = of.metric
    error = "hr10_error" if of.is_of_last_items else f"{metric}_se"
    shares: set[float] = set()
    middle = (len(of.curves) - 1) / 2.0
    for place, (model, rows) in enumerate(of.curves.items()):
        colour, line_style = LINE_STYLES.get(model, OTHERS[place % len(OTHERS)])
        is_tree = line_style in _TREE_LINES
        found = [100.0 * share_of(row) for row in rows]
        shares |= set(found)
        aside = 1.03 ** (place - middle)  # error bars next to each other
        axes.errorbar(
            [share * aside for share in found],
            [number(row, metric) or math.nan for row in rows],
            [number(row, error) or 0.0 for row in rows],
            color=colour,
            marker="" if is_tree else line_style,
            linestyle=line_style if is_tree else "-",
            label={REFERENCE: "pre-trained", WITHOUT_PRETRAINING: "not pre-trained"}.get(
                model, model
            ),
        )
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(shares), [f"{share:g} %" for share in sorted(shares)])
    axes.margins(x=0.1, y=0.12)
    axes.set_xlabel("click labels to learn from (log scale)")
    _name_scale(axes, METRICS[metric])


def _dots_panel(axes: Axes, of: Evidence, meanings: Mapping[str, str]) -> None:
    """Draw a line for each of ``meanings``, the same lines in all panels."""
    less, places = f"{of.metric}_minus_{REFERENCE}", list(meanings)
    axes.axvline(0.0, color=BLUE, linewidth=1.4)
    for row in _differences(of):
        colour, marker = _line_style(row)
        place, error = places.index(row["model"]), number(row, f"{less}_se") or 0.0
        axes.errorbar(row[less], place, xerr=error, color=colour, marker=marker)
    axes.set_yticks(range(len(places)), list(meanings.values()))
    axes.set_ylim(len(places) - 0.5, -0.5)  # the first on top
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter("{x:+.3f}")
    axes.set_xlabel(f"{METRICS[of.metric]} − SRP4CTR's")


def _differences(of: Evidence) -> list[Row]:
    """Return the ablations that share a seed with SRP4CTR."""
    less = f"{of.metric}_minus_{REFERENCE}"
    return [row for row in of.ablations if number(row, less) is not None]


def _line_style(row: Row) -> tuple[str, str]:
    unknown = "-." if _millions(row) is None else "*"
    return LINE_STYLES.get(model_of(row), ("#999999", unknown))


def _name_scale(axes: Axes, metric: str) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10)))
    axes.set_ylabel(f"{metric} ± standard error")
