"""Rows of evidence → three plots as SVG: quality against cost, few labels, ablations.

The same rows give the same bytes: no date, ids from a fixed salt. Text stays text, placed
by matplotlib's own font, which is a wide one: another on the reader's side covers less.
The colours are Okabe and Ito's, which the colour-blind tell apart; shapes differ too.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.report.evidence_panels import (
    cost_panel,
    curve_panel,
    differences,
    dots_panel,
    name_points,
    points,
)
from benchmarks.report.evidence_rows import Evidence

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
    shown = [of for of in evidence if any(points(of))]
    return _drawn(shown, cost_panel, names=name_points)


def learning_curve(evidence: Sequence[Evidence]) -> str | None:
    """Return gAUC by share of the click labels; None: nobody ran with few."""
    return _drawn([of for of in evidence if of.curves], curve_panel)


def ablation_dots(evidence: Sequence[Evidence]) -> str | None:
    """Return how far each variant is from SRP4CTR; None: no variant ran."""
    shown = [of for of in evidence if differences(of)]
    meanings = {row["model"]: row["meaning"] for of in shown for row in differences(of)}
    return _drawn(shown, lambda axes, of: dots_panel(axes, of, meanings), is_shared=True)


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
