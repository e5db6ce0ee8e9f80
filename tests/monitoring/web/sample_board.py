"""A dashboard with a panel of each kind that the page draws, and an empty one."""

import json
from pathlib import Path
from typing import Any

THRESHOLDS = {
    "mode": "absolute",
    "steps": [{"color": "green", "value": None}, {"color": "red", "value": 0.9}],
}
VERDICT = {
    "type": "value",
    "options": {
        "1": {"text": "better", "color": "green"},
        "0": {"text": "undecided", "color": "text"},
    },
}
VERSION = '{model_version=~"$version"}'


def target(expr: str, legend: str = "", **more: Any) -> dict[str, Any]:
    """Return a query of a panel."""
    return {"refId": "A", "expr": expr, "legendFormat": legend, "range": True} | more


def tables(*expressions: str) -> list[dict[str, Any]]:
    """Return queries whose answers are tables of this instant."""
    how: dict[str, Any] = {"format": "table", "instant": True, "range": False}
    return [
        target(expr, refId=chr(ord("A") + place), **how)
        for place, expr in enumerate(expressions)
    ]


PANELS: list[dict[str, Any]] = [
    {
        "type": "stat",
        "title": "Click rate of $version",
        "description": "How often the first item is clicked.",
        "targets": [
            target(f"srp4ctr_online_click_rate_at_top{VERSION}", "{{model_version}}")
        ],
        "fieldConfig": {
            "defaults": {"unit": "percentunit", "decimals": 1, "thresholds": THRESHOLDS}
        },
        "options": {"colorMode": "background", "graphMode": "area"},
    },
    {
        "type": "stat",
        "title": "Verdict",
        "targets": [target("srp4ctr_verdict", "{{model_version}}")],
        "fieldConfig": {"defaults": {"mappings": [VERDICT]}},
    },
    {
        "type": "timeseries",
        "title": "Lines with their bounds",
        "targets": [
            target(f"srp4ctr_live_auc{VERSION}", "{{model_version}}"),
            target(f"srp4ctr_live_auc_bound{VERSION}", "{{model_version}} {{bound}}"),
        ],
        "fieldConfig": {
            "defaults": {"custom": {"thresholdsStyle": {"mode": "line"}}},
        },
    },
    {
        "type": "table",
        "title": "Versions",
        "targets": tables(
            "srp4ctr_live_auc", "srp4ctr_verdict", "srp4ctr_bundle_created_seconds * 1000"
        ),
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(
                        ("Time", "__name__", "instance", "job", "baseline"), True
                    ),
                    "renameByName": {
                        "model_version": "Version",
                        "Value #A": "AUC",
                        "Value #B": "Verdict",
                        "Value #C": "Made",
                    },
                },
            },
        ],
        "fieldConfig": {
            "defaults": {"decimals": 2},
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": "Verdict"},
                    "properties": [
                        {"id": "mappings", "value": [VERDICT]},
                        {"id": "custom.cellOptions", "value": {"type": "color-text"}},
                    ],
                },
                {
                    "matcher": {"id": "byName", "options": "Made"},
                    "properties": [{"id": "unit", "value": "dateTimeAsIso"}],
                },
            ],
        },
        "options": {"sortBy": [{"displayName": "Version", "desc": True}]},
    },
    {
        "type": "bargauge",
        "title": "Drift by feature",
        "targets": [
            target(
                "max by (feature) (srp4ctr_feature_psi)",
                "{{feature}}",
                instant=True,
                range=False,
            )
        ],
        "fieldConfig": {"defaults": {"decimals": 3, "min": 0, "thresholds": THRESHOLDS}},
    },
    {
        "type": "heatmap",
        "title": "Request duration",
        "targets": [
            target(
                "sum by (le) (increase(srp4ctr_request_duration_seconds_bucket[1m]))",
                "{{le}}",
                format="heatmap",
            )
        ],
        "options": {"calculate": False, "yAxis": {"unit": "s"}},
    },
    {
        "type": "xychart",
        "title": "Calibration curve",
        "targets": tables(
            'max by (bin) (srp4ctr_calibration_bin_score{model_version="v1"})',
            'max by (bin) (srp4ctr_calibration_bin_click_rate{model_version="v1"})',
        ),
        "transformations": [{"id": "merge", "options": {}}],
        "fieldConfig": {
            "defaults": {"unit": "percentunit", "custom": {"show": "points+lines"}}
        },
        "options": {
            "mapping": "manual",
            "series": [
                {
                    "name": {"fixed": "v1"},
                    "x": {"matcher": {"id": "byName", "options": "Value #A"}},
                    "y": {"matcher": {"id": "byName", "options": "Value #B"}},
                }
            ],
        },
    },
    {
        "type": "state-timeline",
        "title": "Sources",
        "targets": [target("srp4ctr_source_up", "{{source}}")],
        "fieldConfig": {
            "defaults": {
                "mappings": [
                    {"type": "value", "options": {"1": {"text": "up", "color": "green"}}}
                ]
            }
        },
    },
    {
        "type": "text",
        "title": "Read me",
        "options": {"mode": "markdown", "content": "**Bold** words."},
    },
    {
        "type": "timeseries",
        "title": "Nothing yet",
        "targets": [target("rate(srp4ctr_probe_failures_total[5m])")],
    },
]


def board() -> dict[str, Any]:
    """Return the dashboard, three panels in a line."""
    row = {
        "type": "row",
        "title": "Everything",
        "gridPos": {"x": 0, "y": 0, "w": 24, "h": 1},
    }
    panels = [
        panel
        | {
            "id": place,
            "gridPos": {"x": place % 3 * 8, "y": 1 + place // 3 * 8, "w": 8, "h": 8},
        }
        for place, panel in enumerate(PANELS)
    ]
    variable = {
        "type": "query",
        "name": "version",
        "label": "Version",
        "query": "label_values(srp4ctr_live_auc, model_version)",
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return {
        "title": "srp4ctr: a sample",
        "description": "One panel of each kind.",
        "time": {"from": "now-5m", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [row, *panels],
    }


def write(folder: Path) -> Path:
    """Write the dashboard into ``folder`` and return that."""
    (folder / "sample.json").write_text(json.dumps(board()))
    return folder
