"""Dashboards, current values and the playground → HTML documents.

One template serves the live page and the file that ``srp4ctr monitor report`` writes. The
file has no script and no address, so that it opens from a mail.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from srp4ctr.monitoring.dashboards import load_boards
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web import dashboard
from srp4ctr.monitoring.web.answers import Answers
from srp4ctr.monitoring.web.current_values import read_exporters
from srp4ctr.monitoring.web.drawings import View
from srp4ctr.monitoring.web.markup import Markup, element, joined
from srp4ctr.monitoring.web.period import Period, utc_minute
from srp4ctr.monitoring.web.values_table import values_table

STATIC = Path(__file__).with_name("static")
STYLES = ("style.css", "panels.css")
RANGES_S = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400}
DEFAULT_RANGE = "15m"
# A second line of defence behind the escaping: nothing is fetched, no script runs.
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a visitor has picked on a dashboard."""

    range_name: str = DEFAULT_RANGE
    versions: tuple[str, ...] = ()
    """Empty: all."""

    def address(self) -> str:
        """Return the choice as the query of an address."""
        given = {"range": self.range_name, "version": ",".join(self.versions)}
        return f"?{urlencode({name: text for name, text in given.items() if text})}"

    def period(self, now_s: float) -> Period:
        """Return the period that ends now."""
        return Period(start_s=now_s - RANGES_S[self.range_name], end_s=now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all documents of the live page share."""

    prometheus: Prometheus
    exporters: Mapping[str, str]
    """The address of each job's metrics, for their current values."""
    currency: str
    has_playground: bool

    def dashboard(self, name: str, choice: Choice, now_s: float) -> str:
        """Return the document of a dashboard; without Prometheus of the current values."""
        board = load_boards()[name]
        if problem := self.prometheus.problem():
            tools, content = None, joined(_how_to_get_prometheus(problem), self._values())
        else:
            period = choice.period(now_s)
            answers = Answers(
                prometheus=self.prometheus,
                period=period,
                versions=dashboard.version_pattern(board, choice.versions),
            )
            view = View(answers=answers, currency=self.currency, zone=None)
            names = dashboard.version_names(board, self.prometheus, period)
            tools = element(
                "div", _versions(choice, names), _ranges(choice), class_="pickers"
            )
            content = dashboard.body(board, view, self.exporters)
        toolbar = element("div", dashboard.heading(board), tools, class_="toolbar")
        return self._document(
            board["title"], f"/d/{name}", joined(toolbar, content), choice
        )

    def values(self) -> str:
        """Return the document of the current values."""
        about = "The metrics that each exporter serves now, as Prometheus scrapes them."
        content = joined(_toolbar("Current values", about), self._values())
        return self._document("Current values", "/values", content)

    def playground(self, token: str) -> str:
        """Return the playground's document, whose script posts with ``token``."""
        return self._document("Playground", "/playground", Markup(), token=token)

    def not_found(self, path: str) -> str:
        """Return the document of a path that does not exist."""
        return self._document("Not found", "", element("p", f"There is no page {path}."))

    def _values(self) -> Markup:
        return values_table(read_exporters(self.exporters))

    def _document(
        self,
        title: str,
        path: str,
        content: Markup,
        choice: Choice | None = None,
        token: str = "",
    ) -> str:
        styles = (*STYLES, "playground.css") if token else STYLES
        head = (
            *(element("link", rel="stylesheet", href=f"/static/{s}") for s in styles),
            element("link", rel="icon", href="/static/icon.svg"),
            element("meta", name="srp4ctr-token", content=token) if token else None,
            element("script", src="/static/theme.js"),  # no module: before the first paint
            element("script", src="/static/main.js", type="module"),
        )
        bar = element("header", self._bar(title, path, choice), class_="bar")
        said = "Without JavaScript this page does not refresh, and has no playground."
        return _html(
            f"{title} · srp4ctr",
            head,
            element("a", "Skip to the content", class_="skip", href="#view"),
            bar,
            element("main", content, id="view", tabindex="-1"),
            element("noscript", said),
        )

    def _bar(self, title: str, path: str, choice: Choice | None) -> Markup:
        # The range is kept on the next dashboard; versions belong to theirs.
        kept = Choice(range_name=choice.range_name).address() if choice else ""
        places = {f"/d/{name}": each["title"] for name, each in load_boards().items()}
        places |= {"/playground": "Playground"} if self.has_playground else {}
        places["/values"] = "Current values"
        links = [
            element(
                "a",
                name,
                href=f"{each}{kept}" if each.startswith("/d/") else each,
                aria_current="page" if each == path else None,
            )
            for each, name in places.items()
        ]
        menu = element("summary", title), element("nav", links, aria_label="Pages")
        return joined(
            element("a", "srp4ctr", class_="brand", href="/"),
            element("nav", links, class_="tabs", aria_label="Pages"),
            element("details", menu, class_="menu"),
            element("div", class_="refresh"),  # the script's, as the next one
            element("div", class_="theme-place"),
        )


def report(
    prometheus: Prometheus, period: Period, currency: str, boards: Mapping[str, Any]
) -> str:
    """Return the file's text: all ``boards`` over ``period``, for all versions."""
    content = []
    for name, board in boards.items():
        answers = Answers(
            prometheus=prometheus,
            period=period,
            versions=dashboard.version_pattern(board, ()),
        )
        view = View(answers=answers, currency=currency, zone=UTC)
        shown = dashboard.heading(board), dashboard.body(board, view, {})
        content.append(element("section", shown, id=name, class_="board"))
    links = [element("a", b["title"], href=f"#{n}") for n, b in boards.items()]
    about = (
        f"{period}. Lines are over the period, in UTC. Figures and tables are of its end: "
        "quality is of the last hour, rates and prices are of the last minutes."
    )
    style = "\n".join((STATIC / each).read_text(encoding="utf-8") for each in STYLES)
    head = (
        element("meta", http_equiv="Content-Security-Policy", content=FILE_POLICY),
        element("style", Markup(style)),
    )
    nav = element("nav", links, class_="contents", aria_label="Dashboards")
    toolbar = element("div", element("p", about), nav, class_="heading")
    title = f"srp4ctr, {utc_minute(period.start_s)} to {utc_minute(period.end_s)} UTC"
    return _html(title, head, element("main", toolbar, content))


def _html(title: str, head: Iterable[str | None], *content: Markup) -> str:
    """Return a document."""
    named = element("title", title)
    start = '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    viewport = element(
        "meta", name="viewport", content="width=device-width, initial-scale=1"
    )
    inside = "\n".join(each for each in (viewport, named, *head) if each)
    return f"{start}\n{inside}\n</head>\n<body>\n{joined(*content)}\n</body>\n</html>\n"


def _toolbar(title: str, about: str) -> Markup:
    text = element("div", element("h1", title), element("p", about), class_="heading")
    return element("div", text, class_="toolbar")


def _how_to_get_prometheus(problem: str) -> Markup:
    return element(
        "div",
        element(
            "p",
            element("strong", problem),
            " The dashboards need its history; below are the exporters' current values.",
        ),
        element(
            "p",
            "To get it on Debian or Ubuntu: ",
            element("code", "sudo apt install prometheus"),
            "; then ",
            element("code", "srp4ctr stack up"),
            " (and the demo) starts it with the rest of the stack. To use another, set ",
            element("code", "monitoring.prometheus_url"),
            " in settings.toml.",
        ),
        class_="notice",
        role="status",
    )


def _ranges(choice: Choice) -> Markup:
    links = (
        element(
            "a",
            name,
            href=Choice(range_name=name, versions=choice.versions).address(),
            aria_label=f"Last {name}",
            aria_current="true" if name == choice.range_name else None,
            data_kept=name,
        )
        for name in RANGES_S
    )
    return element("div", *links, class_="ranges", role="group", aria_label="Range of time")


def _versions(choice: Choice, names: Sequence[str]) -> Markup | None:
    """Return the picker: each link adds a version or removes it, the first picks all."""
    if not names and not choice.versions:
        return None
    links = [_version("All", choice, (), is_chosen=not choice.versions)]
    for name in dict.fromkeys([*names, *choice.versions]):
        is_chosen = name in choice.versions
        rest = tuple(version for version in choice.versions if version != name)
        versions = rest if is_chosen else (*rest, name)
        links.append(_version(name, choice, versions, is_chosen=is_chosen))
    chosen = element("b", ", ".join(choice.versions) or "All")
    summary = element("summary", element("span", "Version"), chosen, data_kept="version")
    content = element("div", links, class_="choices")
    return element("details", summary, content, class_="variable", data_kept="versions")


def _version(
    name: str, choice: Choice, versions: tuple[str, ...], *, is_chosen: bool
) -> Markup:
    return element(
        "a",
        name,
        href=Choice(range_name=choice.range_name, versions=versions).address(),
        aria_current="true" if is_chosen else None,
        data_kept=f"version {name}",
    )
