"""The demo's figures: computed from the replay, shown as tables and as one JSON line."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from srp4ctr.cli.tables.results import a_table
from srp4ctr.cli.tables.results import figures as figure_column
from srp4ctr.demo.popularity_baseline import POPULARITY, PairedCtr, most_popular
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
    calibration: float | None
    """None where negatives are sampled: a score is no probability of a click."""
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
class LiveDetails:
    """What the tables show of the live model besides ``DemoFigures``."""

    top_interval: Interval
    auc_interval: Interval
    log_loss: float | None
    calibration_interval: Interval
    matured_impressions: int
    probes: int
    """Clicks for which the time to a changed score was measured."""
    unchanged_probes: int
    """Probes that saw no change in 20 s; the 99th percentile has them as 20 s."""
    late_probes: int
    """Clicks that were to be timed, but had no free probe when they were due."""
    control_click_rate: float | None
    """At position 1, of the control group, which ``control_rule`` ranks for."""
    control_interval: Interval
    paired: PairedCtr
    control_rule: str = POPULARITY


def popularity_click_rate(slates: Sequence[ReplayedSlate], clicks: Counter[str]) -> float:
    """Return the share of slates whose item with the most earlier ``clicks`` is clicked."""
    return float(np.mean([most_popular(s, clicks) in s.clicked for s in slates]))


def random_click_rate(slates: Sequence[ReplayedSlate]) -> float:
    """Return the same in expectation with a random item of the slate first."""
    return float(np.mean([len(slate.clicked) / len(slate.item_ids) for slate in slates]))


def percentile_ms(slates: Sequence[ReplayedSlate], q: float) -> float:
    """Return the ``q``-th percentile of the requests' latency in milliseconds."""
    return float(np.percentile([slate.latency_s for slate in slates], q) * 1000)


def show(console: Console, figures: DemoFigures, live: LiveDetails) -> None:
    """Print the figures, one table per subject, and the paired comparison as a line."""
    console.print(
        _table(
            "Input",
            ("events", "users", "rejected"),
            (f"{figures.events:,}", f"{figures.users:,}", f"{figures.rejected:,}"),
        )
    )
    console.print(_quality_table(figures, live))
    console.print(_ranking_table(figures, live))
    console.print(live.paired.sentence(), highlight=False)
    console.print(_cost_table(figures, live))


def _table(title: str, columns: Sequence[str], *rows: Sequence[str]) -> Table:
    return a_table(title, columns[0], *map(figure_column, columns[1:]), rows=rows)


def _quality_table(figures: DemoFigures, live: LiveDetails) -> Table:
    return _table(
        f"Prediction quality of model {figures.model_version}",
        ("on", "AUC", "log loss", "calibration\n(predicted / clicked)"),
        (
            "held-out slates, before promotion",
            *map(_or_dash, (figures.auc, figures.log_loss, figures.calibration)),
        ),
        (
            f"live, {live.matured_impressions:,} matured impressions\n(AUC at a position)",
            f"{_or_dash(figures.live_auc)} {_between(live.auc_interval)}",
            _or_dash(live.log_loss),
            f"{_or_dash(figures.live_calibration)} {_between(live.calibration_interval)}",
        ),
    )


def _ranking_table(figures: DemoFigures, live: LiveDetails) -> Table:
    slates = figures.requests - figures.failed_requests
    popular = wilson(figures.popularity_ctr, slates)
    model = f"SRP4CTR {figures.model_version}, from matured labels"
    rate = f"[bold green]{figures.online_ctr:.3f}[/bold green]"
    rates = _or_dash(figures.popularity_ctr), _or_dash(live.control_click_rate)
    return _table(
        "Replayed CTR at position 1, same slates",
        ("ranked by", "CTR", "95 % interval"),
        (model, rate, _between(live.top_interval)),
        ("popularity (clicks of the history)", rates[0], _between(popular)),
        ("random (expected)", _or_dash(figures.random_ctr), ""),
        (f"{live.control_rule}, control group", rates[1], _between(live.control_interval)),
    )


def _cost_table(figures: DemoFigures, live: LiveDetails) -> Table:
    ratio = figures.unfolded_flops / figures.folded_flops
    reencoded = f"{figures.unfolded_flops / 1e6:.0f} M  ({ratio:.0f}×)"
    latency = f"{figures.p50_ms:.1f}, {figures.p99_ms:.1f} ms"
    return _table(
        "Cost of a request",
        ("", "encode once", "re-encode\nper candidate"),
        ("FLOPs for 100 candidates", f"{figures.folded_flops / 1e6:.0f} M", reencoded),
        ("encoder runs", f"{figures.encoder_runs_per_request:.2f}", "100"),
        ("latency p50, p99", latency, ""),
        ("failed", f"{figures.failed_requests} of {figures.requests:,}", ""),
        ("click → changed score, p99", f"{_or_dash(figures.freshness_p99_s)} s", ""),
        ("no change within 20 s", f"{live.unchanged_probes} of {live.probes:,}", ""),
        ("not timed: no probe was free", f"{live.late_probes:,}", ""),
    )


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _between(interval: Interval) -> str:
    if np.isnan(interval.low):
        return ""
    return f"[dim]({interval.low:.3f} to {interval.high:.3f})[/dim]"
