"""The first Grafana dashboard, as a table of panels: ``python -m monitoring.dashboard``.

In: ``ROWS``, one line a panel. Out: ``grafana/dashboards/srp4ctr.json``, which is committed
and which a test compares with what this module writes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD_FILE = Path(__file__).parent / "grafana" / "dashboards" / "srp4ctr.json"
_COLUMNS, _HEIGHT = 24, 8  # Grafana's grid
_SOURCE = {"type": "prometheus", "uid": "prometheus"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One line of a panel: PromQL, and its legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: what it shows, why one looks at it, in which unit."""

    title: str
    why: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"


def _with_bounds(metric: str) -> tuple[Query, ...]:
    return (
        Query(expr=metric, legend="{{model_version}}"),
        Query(expr=f"{metric}_bound", legend="{{model_version}} {{bound}}"),
    )


def _quantiles(histogram: str) -> tuple[Query, ...]:
    rate = f"sum by (le) (rate({histogram}_bucket[1m]))"
    return tuple(
        Query(expr=f"histogram_quantile({q}, {rate})", legend=f"p{q * 100:.0f}")
        for q in (0.5, 0.99)
    )


QUALITY = (
    Panel(
        title="Online click rate at position 1",
        why="Of settled impressions in the window, with the 95 % interval.",
        unit="percentunit",
        queries=_with_bounds("srp4ctr_online_click_rate_at_top"),
    ),
    Panel(
        title="Live AUC",
        why="Does a clicked item score above one that was passed over? 0.5 is chance.",
        unit="none",
        queries=_with_bounds("srp4ctr_live_auc"),
    ),
    Panel(
        title="Calibration",
        why="Sum of scores over clicks: 1 is honest, above it promises too much.",
        unit="none",
        queries=_with_bounds("srp4ctr_calibration_ratio"),
    ),
    Panel(
        title="Live log loss",
        why="Nats an impression: worse ranking and worse calibration both raise it.",
        unit="none",
        queries=(Query(expr="srp4ctr_live_log_loss_nats", legend="{{model_version}}"),),
    ),
    Panel(
        title="Settled impressions in the window",
        why="How much the figures above rest on.",
        unit="short",
        queries=(Query(expr="srp4ctr_matured_impressions", legend="{{model_version}}"),),
    ),
    Panel(
        title="Serving version",
        why="Which bundle answers requests now.",
        unit="none",
        queries=(Query(expr="srp4ctr_serving_model", legend="{{model_version}}"),),
        kind="stat",
    ),
)
COST = (
    Panel(
        title="Requests",
        why="Calls of the ensembles a second.",
        unit="reqps",
        queries=(
            Query(
                expr="sum by (ensemble, outcome) (rate(srp4ctr_served_requests_total[1m]))",
                legend="{{ensemble}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        title="Request latency, as the caller sees it",
        why="Includes the network and the caller's own retry.",
        unit="s",
        queries=_quantiles("srp4ctr_rank_request_seconds"),
    ),
    Panel(
        title="Time by step",
        why="Mean of a step, its queue included.",
        unit="s",
        queries=(Query(expr="step:srp4ctr_step_seconds:mean5m", legend="{{step}}"),),
    ),
    Panel(
        title="Encoder runs a user",
        why="1 is the promise of split serving: a history is paid for once.",
        unit="none",
        queries=(Query(expr="srp4ctr:encoder_runs_per_user:rate5m", legend="runs"),),
    ),
    Panel(
        title="FLOPs spent, and unfolded",
        why="At 100 candidates a request: what split serving saves.",
        unit="flops",
        queries=(
            Query(expr="rate(srp4ctr_inference_flops_total[1m])", legend="spent"),
            Query(expr="rate(srp4ctr_unfolded_flops_total[1m])", legend="unfolded"),
        ),
    ),
    Panel(
        title="Sources",
        why="0: the monitor hears nothing from it, and its figures are old.",
        unit="none",
        queries=(Query(expr="srp4ctr_source_up", legend="{{source}}"),),
        kind="stat",
    ),
)
FRESHNESS = (
    Panel(
        title="Event → sequence",
        why="From the record's timestamp to the acknowledged write of the sequence.",
        unit="s",
        queries=_quantiles("srp4ctr_event_to_sequence_seconds"),
    ),
    Panel(
        title="Label due → published",
        why="How long metrics and training lag behind what is already known.",
        unit="s",
        queries=_quantiles("srp4ctr_label_maturity_lag_seconds"),
    ),
    Panel(
        title="Events",
        why="Accepted by type, rejected by reason.",
        unit="cps",
        queries=(
            Query(expr="sum by (type) (rate(srp4ctr_events_total[1m]))", legend="{{type}}"),
            Query(
                expr="sum by (reason) (rate(srp4ctr_events_rejected_total[1m]))",
                legend="rejected: {{reason}}",
            ),
        ),
    ),
    Panel(
        title="Records behind",
        why="How far the stream worker is from the end of its partitions.",
        unit="short",
        queries=(Query(expr="sum(srp4ctr_stream_lag_records)", legend="records"),),
    ),
)
FEATURES = (
    Panel(
        title="Feature store against the log",
        why="Of the newest check: rows that differ from a recomputation. 0 is the promise.",
        unit="short",
        queries=(
            Query(expr="srp4ctr_feature_check_rows", legend="compared"),
            Query(expr="srp4ctr_feature_check_wrong_rows", legend="wrong"),
            Query(expr="srp4ctr_feature_check_edits", legend="edits of sequences"),
        ),
    ),
    Panel(
        title="Largest difference of a counter",
        why="In events, of the newest check.",
        unit="short",
        queries=(Query(expr="srp4ctr_feature_check_largest_difference", legend="events"),),
    ),
    Panel(
        title="Behind, and since when that is known",
        why="Age of what the log has and the store lacks, and of the check that said so.",
        unit="s",
        queries=(
            Query(expr="srp4ctr_feature_check_behind_seconds", legend="store behind log"),
            Query(expr="srp4ctr_feature_check_age_seconds", legend="since the check"),
        ),
    ),
)
ROWS = {"Quality": QUALITY, "Cost": COST, "Freshness": FRESHNESS, "Features": FEATURES}


def dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        grid = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        panels.append({"type": "row", "title": title, "gridPos": grid, "panels": []})
        panels += [_panel(panel, place, top + 1) for place, panel in enumerate(row)]
        top += 1 + _HEIGHT * (-(-len(row) // 3))
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "uid": "srp4ctr",
        "title": "srp4ctr: quality, cost, freshness, features",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "tags": ["srp4ctr"],
        "panels": panels,
    }


def _panel(panel: Panel, place: int, top: int) -> dict[str, Any]:
    """Return ``panel`` at its place: three in a line."""
    width = _COLUMNS // 3
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.why,
        "datasource": _SOURCE,
        "gridPos": {
            "x": place % 3 * width,
            "y": top + place // 3 * _HEIGHT,
            "w": width,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "expr": query.expr,
                "legendFormat": query.legend,
                "datasource": _SOURCE,
            }
            for number, query in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DASHBOARD_FILE.write_text(text(), encoding="utf-8")
