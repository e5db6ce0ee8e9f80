"""Grafana's dashboards as code: ``make dashboards`` writes their JSON files.

In: one module per dashboard, a table of its panels. Out: ``grafana/dashboards/*.json``,
committed; a test compares them with this code's output.

``srp4ctr monitor open`` and ``srp4ctr monitor report`` draw the same files. They know this
subset of Grafana's format, and a test checks that the dashboards use nothing else.

- Panels are of ``PANEL_TYPES``, or a ``row``: a heading, never collapsed. All are on a grid
  of 24 columns.
- Targets are PromQL: ``expr``, ``legendFormat``, ``instant`` or ``range``, ``format``
  (none, ``table``, or ``heatmap`` for a heatmap's cumulative ``le`` buckets).
  The variable is ``$model_version``, a list from ``label_values(selector, label)``; its
  "All" is the regular expression ``allValue``. Ranges are literal, or ``$__range``.
- A table is ``merge`` (rows with the same labels and time become one; the value of target B
  is the column ``Value #B``), then ``organize`` (``excludeByName``, ``indexByName``,
  ``renameByName``). A curve is such a table; each of its ``options.series`` names a column
  for x and one for y (``byName``). ``TRANSFORMATIONS`` has these and no other.
- ``fieldConfig`` has ``unit``, ``decimals``, ``min``, ``max``, ``thresholds`` (absolute),
  ``mappings`` (of values), ``color`` (fixed, thresholds, palette-classic), ``noValue``; its
  overrides match ``byName`` or ``byRegexp`` and set some of ``PROPERTIES``. A colour is one
  of ``COLOURS`` or ``#rrggbb``; a unit one of ``UNITS``.
- Panels of a type have the same ``options`` and ``custom`` but for a stat's ``textMode``
  and ``colorMode``, a curve's ``series``, a heatmap's ``yAxis.unit``, a table's ``sortBy``,
  a text's Markdown, and whether lines show their thresholds (``thresholdsStyle``).
- Stats and bar gauges show the last sample that is a number. Of a line "v3", the lines
  "v3 low" and "v3 high" are the bounds.
- A panel with a ``noValue``, which says why, may be empty; no other panel is empty once the
  stack has had traffic.
"""

import json
from pathlib import Path
from typing import Any

NAMES = (
    "overview",
    "model_comparison",
    "inference_cost",
    "servers",
    "streams_features",
    "training",
)
FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"
PANEL_TYPES = frozenset(
    {
        "stat",
        "timeseries",
        "table",
        "bargauge",
        "heatmap",
        "xychart",
        "state-timeline",
        "text",
    }
)
TRANSFORMATIONS = frozenset({"merge", "organize"})
PROPERTIES = frozenset(
    {
        "unit",
        "decimals",
        "mappings",
        "thresholds",
        "color",
        "custom.lineStyle",
        "custom.lineWidth",
        "custom.hideFrom",
        "custom.cellOptions",
    }
)
COLOURS = frozenset({"green", "orange", "red", "blue", "purple", "yellow", "text"})
UNITS = frozenset(
    {
        "none",
        "short",
        "percentunit",
        "s",
        "reqps",
        "cps",
        "flops",
        "currency:",
        "dateTimeAsIso",
        "watt",
    }
)


def load_boards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by name, in the order of ``NAMES``."""
    return {
        name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        for name in NAMES
    }
