"""Title, description, unit and targets → Grafana's panel: one function per panel type.

Further keywords are fields of the values: ``decimals``, ``min``, ``max``, ``mappings``, and
``noValue``, the text of an empty panel. Options that no function sets are Grafana's own
defaults, written out as Grafana would save them.

A version's colour is the same everywhere: versions are not known in advance, so the last
digit chooses it. v3 is purple on each panel of each dashboard. Bounds are thin and dashed.
"""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from srp4ctr.monitoring.dashboards.queries import SOURCE, Target, cells
from srp4ctr.monitoring.dashboards.thresholds import Thresholds

Panel = dict[str, Any]
Override = dict[str, Any]
# Without it Grafana migrates the options as if they were of its first release.
GRAFANA = "11.4.0"
COLOURS = {
    "[16]": "blue",
    "[27]": "orange",
    "[38]": "purple",
    "[49]": "#1ab3a6",
    "[50]": "yellow",
}
# A version's secondary lines, by the last word of their names.
BOUNDS = "/ (low|high)$/"
SECOND = ("p50", "re-encoded", "provisional", "training", "held-out")
_THIN: dict[str, object] = {
    "custom.lineStyle": {"fill": "dash", "dash": [4, 6]},
    "custom.lineWidth": 1,
    "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
}
_SECOND: dict[str, object] = {"custom.lineStyle": {"fill": "dash", "dash": [10, 6]}}
_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_NO_LEGEND = {**_LEGEND, "showLegend": False}
_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_BY_THRESHOLD = {"color": {"mode": "thresholds"}}


def stat(
    title: str,
    why: str,
    unit: str,
    *targets: Target,
    limits: Thresholds | None = None,
    text: str = "",
    **field: object,
) -> Panel:
    """Return a figure: on green, amber or red, or without ``limits`` in blue.

    Its history is behind it. ``text`` is Grafana's mode of the text.
    """
    options = {
        "colorMode": "background" if limits else "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": _LAST,
        "showPercentChange": False,
        "textMode": text or ("value" if len(targets) == 1 else "value_and_name"),
        "wideLayout": True,
    }
    found = _field(unit, limits, field)
    return _panel("stat", (title, why), targets, found, options)


def lines(
    title: str,
    why: str,
    unit: str,
    *targets: Target,
    limits: Thresholds | None = None,
    **field: object,
) -> Panel:
    """Return lines over time; ``limits`` are dashed, a version's line has its colour."""
    custom: dict[str, object] = {"lineWidth": 2, "fillOpacity": 0, "showPoints": "auto"}
    if limits:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        field["thresholds"] = limits
    field |= {"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom}
    options = {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
    panel = _panel("timeseries", (title, why), targets, field, options)
    return overridden(panel, *_version_overrides([t["legendFormat"] for t in targets]))


def bars(
    title: str,
    why: str,
    unit: str,
    *targets: Target,
    limits: Thresholds | None = None,
    **field: object,
) -> Panel:
    """Return one bar per series, the first on top; blue without ``limits``."""
    options = {
        "displayMode": "gradient",
        "legend": _NO_LEGEND,
        "maxVizHeight": 300,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": _LAST,
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    found = {**_field(unit, limits, field), "min": 0}
    return _panel("bargauge", (title, why), targets, found, options)


def heat(title: str, why: str, unit: str, target: Target) -> Panel:
    """Return a histogram's buckets over time."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Blues",
            "steps": 64,
            "exponent": 0.5,
            "fill": "dark-orange",
            "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "selectionMode": "x",
        "showValue": "auto",
        "tooltip": {"mode": "single"},
        "yAxis": {"unit": unit, "axisPlacement": "left"},
    }
    # The field is of the cells; the axis has the observed value's unit.
    return _panel("heatmap", (title, why), [target], {"unit": "short"}, options)


def timeline(title: str, why: str, states: list[dict[str, Any]], *targets: Target) -> Panel:
    """Return a timeline of states."""
    field = {
        "unit": "none",
        "mappings": states,
        "color": fixed("text"),
        "custom": {"fillOpacity": 80, "lineWidth": 0},
    }
    options = {
        "alignValue": "left",
        "legend": _NO_LEGEND,
        "mergeValues": True,
        "perPage": 20,
        "rowHeight": 0.9,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "asc"},
    }
    return _panel("state-timeline", (title, why), targets, field, options)


def note(title: str, why: str, markdown: str) -> Panel:
    """Return a text on the dashboard."""
    options = {"mode": "markdown", "content": markdown}
    panel = _panel("text", (title, why), (), {}, options)
    for name in ("datasource", "targets", "fieldConfig"):
        del panel[name]
    return panel


def column(name: str, expr: str, unit: str = "none", **field: object) -> Panel:
    """Return a table's column: its heading, its expression, and the format of its values.

    Values with ``thresholds`` or ``mappings`` are coloured.
    """
    properties = {"unit": unit, **field}
    if {"thresholds", "mappings"} & field.keys():
        properties["custom.cellOptions"] = {"type": "color-text"}
    return {"name": name, "expr": expr, "properties": properties}


def table(title: str, why: str, keys: Mapping[str, str], *columns: Panel) -> Panel:
    """Return a table with one row per label set; ``keys`` maps labels to headings."""
    options = {
        "cellHeight": "sm",
        "footer": {"show": False, "countRows": False, "reducer": []},
        "frameIndex": 0,
        "showHeader": True,
        "showTypeIcons": False,
        "sortBy": [{"displayName": next(iter(keys.values())), "desc": True}],
    }
    targets = [cells(column["expr"]) for column in columns]
    panel = _panel("table", (title, why), targets, {"unit": "none"}, options)
    panel["transformations"] = _joined(keys, [column["name"] for column in columns])
    formats = (
        matching("byName", column["name"], column["properties"]) for column in columns
    )
    return overridden(panel, *formats)


def curves(
    title: str,
    why: str,
    unit: str,
    columns: Mapping[str, str],
    shown: Mapping[tuple[str, str], str],
) -> Panel:
    """Return curves of a table's columns, the expressions of which are by "bin".

    ``shown`` has the columns of x and y of each curve, and its colour.
    """
    series = [
        {
            "name": {"fixed": y},
            "frame": {"matcher": {"id": "byIndex", "options": 0}},
            "x": {"matcher": {"id": "byName", "options": x}},
            "y": {"matcher": {"id": "byName", "options": y}},
        }
        for x, y in shown
    ]
    tooltip = {"mode": "single", "sort": "none"}
    options = {"mapping": "manual", "series": series, "legend": _LEGEND, "tooltip": tooltip}
    custom = {"show": "points+lines", "pointSize": {"fixed": 6}, "lineWidth": 2}
    field = {"unit": unit, "custom": custom}
    targets = [cells(expr) for expr in columns.values()]
    panel = _panel("xychart", (title, why), targets, field, options)
    panel["transformations"] = _joined({"bin": "Bin"}, [*columns])
    coloured = (matching("byName", y, {"color": fixed(c)}) for (_, y), c in shown.items())
    return overridden(panel, *coloured)


def overridden(panel: Panel, *overrides: Override) -> Panel:
    """Return ``panel`` with exceptions for some of its values."""
    field = {**panel["fieldConfig"], "overrides": [*overrides]}
    return {**panel, "fieldConfig": field}


def matching(matcher: str, options: str, properties: Mapping[str, object]) -> Override:
    """Return the override that sets ``properties`` where ``matcher`` says."""
    values = [{"id": name, "value": value} for name, value in properties.items()]
    return {"matcher": {"id": matcher, "options": options}, "properties": values}


def fixed(colour: str) -> dict[str, str]:
    """Return a field's colour, whatever its value."""
    return {"mode": "fixed", "fixedColor": colour}


def _panel(
    kind: str,
    texts: tuple[str, str],
    targets: Sequence[Target],
    field: Mapping[str, object],
    options: Mapping[str, object],
) -> Panel:
    named = zip(targets, ascii_uppercase, strict=False)
    return {
        "type": kind,
        "title": texts[0],
        "description": texts[1],
        "datasource": SOURCE,
        "targets": [{**target, "refId": letter} for target, letter in named],
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": options,
        "pluginVersion": GRAFANA,
        "repeatDirection": "h",
        "transparent": False,
    }


def _field(
    unit: str, limits: Thresholds | None, field: Mapping[str, object]
) -> dict[str, object]:
    colour = {"thresholds": limits, **_BY_THRESHOLD} if limits else {"color": fixed("blue")}
    return {"unit": unit, **colour, **field}


def _version_overrides(legends: Sequence[str]) -> list[Override]:
    """Return the overrides of a panel whose lines have these ``legends``."""
    found: list[Override] = []
    if any("{{model_version}}" in legend for legend in legends):
        found += [
            matching("byRegexp", rf"/^v\d*{digits}( |$)/", {"color": fixed(colour)})
            for digits, colour in COLOURS.items()
        ]
    if any("{{bound}}" in legend for legend in legends):
        found.append(matching("byRegexp", BOUNDS, _THIN))
    if any(legend.endswith((*SECOND, "{{where}}")) for legend in legends):
        found.append(matching("byRegexp", rf"/(^| )({'|'.join(SECOND)})$/", _SECOND))
    return found


def _joined(keys: Mapping[str, str], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the transformations that join targets A, B, C… with columns ``names``."""
    values = [f"Value #{letter}" for letter, _ in zip(ascii_uppercase, names, strict=False)]
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: place for place, name in enumerate((*keys, *values))},
        "renameByName": {**keys, **dict(zip(values, names, strict=True))},
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
