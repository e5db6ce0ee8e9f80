"""Panels → a dashboard: headings, lines of panels, links to the others, the variable."""

from itertools import count
from typing import Any

from srp4ctr.monitoring.dashboards.panels import Panel
from srp4ctr.monitoring.dashboards.queries import SOURCE

TAG = "srp4ctr"  # dashboards that have it are linked with each other
COLUMNS = 24
_LINK = {
    "title": "Dashboards",
    "type": "dashboards",
    "tags": [TAG],
    "includeVars": True,
    "keepTime": True,
    "asDropdown": False,
    "targetBlank": False,
    "icon": "",
    "tooltip": "",
}
_VERSIONS = {
    "name": "model_version",
    "type": "query",
    "label": "Version",
    "description": "The versions whose figures are shown.",
    "datasource": SOURCE,
    "query": (
        'label_values(srp4ctr_matured_impressions{model_version!="unranked"}, '
        "model_version)"
    ),
    "refresh": 2,  # when the time range changes
    "sort": 8,  # natural, descending
    "multi": True,
    "includeAll": True,
    "allValue": "(v[0-9]|[^u]).*",  # includes versions without a matured label
    "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    "skipUrlSync": False,
    "auto": False,
    "auto_count": 30,
    "auto_min": "10s",
}


def board(
    name: str, title: str, why: str, *sections: list[Panel], has_versions: bool = True
) -> dict[str, Any]:
    """Return a dashboard of ``sections`` with links to the others.

    ``has_versions`` gives it the variable ``$model_version``: some versions, or all.
    """
    return {
        "title": title,
        "uid": f"{TAG}-{name.replace('_', '-')}",
        "description": why,
        "tags": [TAG],
        "links": [_LINK],
        "editable": False,
        "graphTooltip": 1,  # the crosshair is on all panels
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "refresh": "10s",
        "annotations": {},
        "fiscalYearStartMonth": 0,
        "schemaVersion": 39,
        "panels": _placed([panel for section in sections for panel in section]),
        "templating": {"list": [_VERSIONS]} if has_versions else {},
    }


def section(title: str, *lines: list[Panel]) -> list[Panel]:
    """Return a heading and the lines of panels below it."""
    heading = {"type": "row", "title": title, "collapsed": False, "panels": []}
    return [panel for line_ in (line(1, heading), *lines) for panel in line_]


def line(height: int, *panels: Panel, widths: tuple[int, ...] = ()) -> list[Panel]:
    """Return ``panels`` side by side, of equal widths unless ``widths`` says otherwise.

    Raises ``ValueError`` if they do not fill the line.
    """
    widths = widths or (COLUMNS // len(panels),) * len(panels)
    if (width := sum(widths)) != COLUMNS:
        raise ValueError(f"panels of {width} columns do not fill a line of {COLUMNS}")
    return [
        {**panel, "gridPos": {"h": height, "w": width, "x": sum(widths[:place])}}
        for place, (panel, width) in enumerate(zip(panels, widths, strict=True))
    ]


def _placed(panels: list[Panel]) -> list[Panel]:
    """Return ``panels`` with their numbers and the lines at which they begin."""
    found, y, numbers = [], 0, count(1)
    for panel in panels:
        place = panel["gridPos"]
        found.append({**panel, "id": next(numbers), "gridPos": {**place, "y": y}})
        if place["x"] + place["w"] == COLUMNS:
            y += place["h"]
    return found
