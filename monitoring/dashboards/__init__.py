"""Grafana's dashboards as code: ``make dashboards`` writes them anew.

In: one module a dashboard, made with Grafana's own SDK, which nothing that runs needs.
Out: ``grafana/dashboards/*.json``, committed; a test compares them with what is made here.

Grafana is not their only reader: a page that draws them knows this subset, and a test
holds it.

- Panels are of ``PANEL_TYPES``, or a ``row``: a heading, never collapsed. All are on a grid
  of 24 columns.
- Targets are PromQL: ``expr``, ``legendFormat``, ``instant`` or ``range``, ``format``
  (none, ``table`` or, of a heatmap's cumulative ``le`` buckets, ``heatmap``).
  The one variable is ``$model_version``, a list from ``label_values(selector, label)``; its
  "All" is the regular expression ``allValue``. Ranges are written out: no ``$__interval``.
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
- A panel may be empty if it has a ``noValue``, which then says why; no other panel is, once
  the stack has had traffic.
"""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"
PANEL_TYPES = frozenset(
    {
        *("stat", "timeseries", "table", "bargauge"),
        *("heatmap", "xychart", "state-timeline", "text"),
    }
)
TRANSFORMATIONS = frozenset({"merge", "organize"})
PROPERTIES = frozenset(
    {
        *("unit", "decimals", "mappings", "thresholds", "color"),
        *("custom.lineStyle", "custom.lineWidth", "custom.hideFrom", "custom.cellOptions"),
    }
)
COLOURS = frozenset({"green", "orange", "red", "blue", "purple", "yellow", "text"})
UNITS = frozenset(
    {
        *("none", "short", "percentunit", "s", "reqps", "cps", "flops"),
        *("currencyUSD", "dateTimeAsIso", "watt"),
    }
)
