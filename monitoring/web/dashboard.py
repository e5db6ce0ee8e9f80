"""A dashboard's file and Prometheus → its sections of panels, as HTML."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.quality.version_order import version_order
from srp4ctr.monitoring.web.current_values import read_exporters
from srp4ctr.monitoring.web.drawings import Panel, View, draw
from srp4ctr.monitoring.web.empty_panel import reason_of, why_empty
from srp4ctr.monitoring.web.markup import Markup, element
from srp4ctr.monitoring.web.period import Period

QUERIES_AT_ONCE = 8
Board = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Panels under a heading, which is "" above the first one."""

    title: str
    panels: Sequence[Panel]


def sections(board: Board) -> list[Section]:
    """Return the dashboard's rows with their panels."""
    found: list[tuple[str, list[Panel]]] = [("", [])]
    for panel in board["panels"]:
        if panel["type"] == "row":
            found.append((panel["title"], []))
        else:
            found[-1][1].append(panel)
    return [Section(title=title, panels=panels) for title, panels in found if panels]


def heading(board: Board) -> Markup:
    """Return the dashboard's title, and what it is for."""
    title, about = element("h1", board["title"]), element("p", board["description"])
    return element("div", title, about, class_="heading")


def body(board: Board, view: View, exporters: Mapping[str, str]) -> Markup:
    """Return the panels; ``exporters`` say why a panel is empty."""
    pages = cache(lambda: read_exporters(exporters))
    panels = [panel for section in sections(board) for panel in section.panels]
    with ThreadPoolExecutor(QUERIES_AT_ONCE) as pool:
        contents = pool.map(lambda panel: _content(panel, view, pages), panels)
        drawn = iter(list(contents))
    return element("div", (_section(section, drawn) for section in sections(board)))


def version_names(board: Board, prometheus: Prometheus, period: Period) -> list[str]:
    """Return the versions to choose from, the newest first; none without a variable."""
    specs = board["templating"].get("list", ())
    if not specs:
        return []
    match = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", specs[0]["query"])
    assert match is not None  # a test checks all dashboards
    selector, label = match.groups()
    query = f"group by ({label}) (last_over_time({selector}[{period.length_s:.0f}s]))"
    names = (each.labels[label] for each in prometheus.at(query, period.end_s))
    return sorted(names, key=version_order, reverse=True)


def version_pattern(board: Board, chosen: Sequence[str]) -> str:
    """Return the regular expression of the ``chosen`` versions, or of all, in a query."""
    specs = board["templating"].get("list", ())
    if not specs or not chosen:
        return specs[0]["allValue"] if specs else ""
    # Escaped for the expression, and then for the quotes that it is between.
    return "|".join(json.dumps(re.escape(each))[1:-1] for each in chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    state: str
    """``drawn``, ``empty`` or ``error``."""
    shown: Markup


def _content(panel: Panel, view: View, pages: Any) -> _Content:
    try:
        if drawn := draw(panel, view):
            return _Content(state="drawn", shown=drawn)
    except (MistakeError, OutageError) as error:
        return _Content(state="error", shown=element("p", str(error), class_="said"))
    reason = why_empty(panel, [] if reason_of(panel) else pages())
    return _Content(state="empty", shown=element("p", sentence(reason), class_="said"))


def sentence(text: str) -> Iterator[str]:
    """Yield the parts of ``text``: what is between backticks is code."""
    for place, part in enumerate(text.split("`")):
        yield element("code", part) if place % 2 else part


def _section(section: Section, drawn: Iterator[_Content]) -> Markup:
    top = min(panel["gridPos"]["y"] for panel in section.panels)
    panels = [_panel(panel, next(drawn), top) for panel in section.panels]
    grid = element("div", panels, class_="grid")
    if not section.title:
        return grid
    name = section.title
    title = element("summary", element("h2", name), data_kept=f"{name} title")
    return element("details", title, grid, class_="section", open=True, data_kept=name)


def _panel(panel: Panel, content: _Content, top: int) -> Markup:
    place = panel["gridPos"]
    x, y = place["x"] + 1, place["y"] - top + 1
    style = f"--x:{x};--y:{y};--w:{place['w']};--h:{place['h']}"
    about = panel["description"]
    tip = element("span", about, class_="tip", role="tooltip")
    button = element(
        "button",
        element("span", "i", aria_hidden="true"),
        tip,
        type="button",
        class_="about",
        aria_label=f"About {panel['title']}: {about}",
        data_kept=f"about {panel['title']}",
    )
    return element(
        "article",
        element("header", element("h3", panel["title"]), button),
        element("div", content.shown, class_="content"),
        class_=f"panel kind-{panel['type']}",
        style=style,
        data_title=panel["title"],
        data_state=content.state,
        data_may_be_empty=bool(reason_of(panel)),  # its dashboard says why
    )
