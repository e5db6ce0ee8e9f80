"""The demo's figures: computed from the replay, shown as tables and as one JSON line."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console, JustifyMethod
from rich.table import Table

from srp4ctr.demo.paired_ctr import PairedCtr, most_popular
from srp4ctr.demo.replay import ReplayedSlate
from srp4ctr.monitoring.quality.confidence_intervals import Interval, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFigures:
    """The last line of the demo's output, in this order."""

    events: int
    users: int
    rejected: int
    model_version: str
    auc: float
    """``auc``, ``log_loss``, ``calibration``: the held-out slice, before promotion."""
    log_loss: float
    calibration: float
    live_auc: float | None
    live_calibration: float | None
    online_ctr: float
    """Replayed CTR at position 1 of the slates that the model ranked, from matured
    labels; ``popularity_ctr`` and ``random_ctr`` are of the same slates."""
    popularity_ctr: float
    random_ctr: float
    paired_difference: float
    """The model's replayed CTR less popularity's, visit by visit."""
    paired_low: float | None
    """``paired_low`` to ``paired_high``: its 95 % interval, over users."""
    paired_high: float | None
    paired_users: int
    paired_visits: int
    requests: int
    failed_requests: int
    p50_ms: float
    p99_ms: float
    encoder_runs_per_request: float
    folded_flops: int
    unfolded_flops: int
    freshness_p99_s: float | None
    wall_s: float

    def to_json(self) -> str:
        """Return one line of JSON; a figure that could not be measured is null."""
        rounded = {
            name: round(value, 5) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }
        return json.dumps(rounded, allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveQualityFigures:
    """The monitor's figures of one model version."""

    click_rate: float
    click_rate_at_top: float
    top_interval: Interval
    auc: float | None
    auc_interval: Interval
    log_loss: float | None
    calibration: float | None
    calibration_interval: Interval
    matured_impressions: int
    probes: int
    """Clicks for which the time to a changed score was measured."""
    control_click_rate: float | None
    """At position 1, of the control group, which popularity ranks for."""
    control_interval: Interval
    unchanged_probes: int
    """Probes that saw no change in 20 s; the 99th percentile has them as 20 s."""


def first_click_rate(slates: Sequence[ReplayedSlate]) -> float:
    """Return the share of slates whose first item, as the model ranked it, was clicked."""
    return float(np.mean([each.item_ids[0] in each.clicked for each in slates]))


def popularity_click_rate(slates: Sequence[ReplayedSlate], clicks: Counter[str]) -> float:
    """Return the same with the item with the most earlier ``clicks`` first."""
    return float(np.mean([most_popular(s, clicks) in s.clicked for s in slates]))


def random_click_rate(slates: Sequence[ReplayedSlate]) -> float:
    """Return the same in expectation with a random item of the slate first."""
    return float(np.mean([len(each.clicked) / len(each.item_ids) for each in slates]))


def percentile_ms(slates: Sequence[ReplayedSlate], q: float) -> float:
    """Return the ``q``-th percentile of the requests' latency in milliseconds."""
    return float(np.percentile([each.latency_s for each in slates], q) * 1000)


def show(console: Console, figures: DemoFigures, live: LiveQualityFigures) -> None:
    """Print the figures, one table per subject, and the paired comparison as a line."""
    console.print(_input_table(figures))
    console.print(_quality_table(figures, live))
    console.print(_ranking_table(figures, live))
    console.print(_paired(figures).sentence(), highlight=False)
    console.print(_cost_table(figures, live))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        is_figure = number > 0
        justify: JustifyMethod = "right" if is_figure else "left"
        table.add_column(column, justify=justify, no_wrap=is_figure, overflow="fold")
    return table


def _input_table(figures: DemoFigures) -> Table:
    table = _table("Input", "events", "users", "rejected")
    table.add_row(f"{figures.events:,}", f"{figures.users:,}", f"{figures.rejected:,}")
    return table


def _quality_table(figures: DemoFigures, live: LiveQualityFigures) -> Table:
    title = f"Prediction quality of model {figures.model_version}"
    columns = ("AUC", "log loss", "calibration\n(predicted / clicked)")
    table = _table(title, "on", *columns)
    table.add_row(
        "held-out slates, before promotion",
        f"{figures.auc:.3f}",
        f"{figures.log_loss:.3f}",
        f"{figures.calibration:.3f}",
    )
    table.add_row(
        f"live, {live.matured_impressions:,} matured impressions",
        f"{_or_dash(figures.live_auc)} {_between(live.auc_interval)}",
        _or_dash(live.log_loss),
        f"{_or_dash(figures.live_calibration)} {_between(live.calibration_interval)}",
    )
    return table


def _ranking_table(figures: DemoFigures, live: LiveQualityFigures) -> Table:
    title = "Replayed CTR at position 1, same slates"
    table = _table(title, "ranked by", "CTR", "95 % interval")
    interval = live.top_interval
    table.add_row(
        f"SRP4CTR {figures.model_version}, from matured labels",
        f"[bold green]{figures.online_ctr:.3f}[/bold green]",
        _between(interval),
    )
    slates = figures.requests - figures.failed_requests
    clicked = round(figures.popularity_ctr * slates)
    popular = wilson(clicked, slates)
    table.add_row(
        "popularity (clicks of the history)",
        f"{figures.popularity_ctr:.3f}",
        _between(popular),
    )
    table.add_row("random (expected)", f"{figures.random_ctr:.3f}", "")
    table.add_row(
        "popularity, control group",
        _or_dash(live.control_click_rate),
        _between(live.control_interval),
    )
    return table


def _paired(figures: DemoFigures) -> PairedCtr:
    return PairedCtr(
        difference=figures.paired_difference,
        low=figures.paired_low,
        high=figures.paired_high,
        users=figures.paired_users,
        visits=figures.paired_visits,
    )


def _cost_table(figures: DemoFigures, live: LiveQualityFigures) -> Table:
    columns = ("", "encode once", "re-encode\nper candidate")
    table = _table("Cost of a request", *columns)
    ratio = figures.unfolded_flops / figures.folded_flops
    table.add_row(
        "FLOPs for 100 candidates",
        f"{figures.folded_flops / 1e6:.0f} M",
        f"{figures.unfolded_flops / 1e6:.0f} M  ({ratio:.0f}×)",
    )
    table.add_row("encoder runs", f"{figures.encoder_runs_per_request:.2f}", "100")
    table.add_row("latency p50, p99", f"{figures.p50_ms:.1f}, {figures.p99_ms:.1f} ms", "")
    table.add_row("failed", f"{figures.failed_requests} of {figures.requests:,}", "")
    table.add_row(
        "click → changed score, p99", f"{_or_dash(figures.freshness_p99_s)} s", ""
    )
    unchanged = f"{live.unchanged_probes} of {live.probes:,}"
    table.add_row("no change within 20 s", unchanged, "")
    return table


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _between(interval: Interval) -> str:
    return f"[dim]({interval.low:.3f} to {interval.high:.3f})[/dim]"
