"""The contents of a report → one HTML file that needs no network.

It has no script, no address and no font of its own, so that it opens from a mail.
"""

import html
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from math import isfinite

from srp4ctr.monitoring.quality.version_order import version_order
from srp4ctr.monitoring.report import number_format as numbers
from srp4ctr.monitoring.report.charts import charts, draw
from srp4ctr.monitoring.report.headline import headline
from srp4ctr.monitoring.report.period import utc_minute
from srp4ctr.monitoring.report.prometheus.promql import MIN_COUNT
from srp4ctr.monitoring.report.report_contents import Contents
from srp4ctr.monitoring.report.tables import alert_table, tables

# A second line of defence behind the escaping: nothing is fetched, no script runs.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
NUM_STYLES = 6


def render_page(contents: Contents, made_s: float) -> str:
    """Return the file's text."""
    title = escaped(headline(contents).title)
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        _headline(contents),
        _versions(contents),
        _charts(contents),
        _alerts(contents),
        _data_and_settings(contents, made_s),
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            *("\n".join(section) for section in sections),
            "</body>",
            "</html>",
            "",
        ]
    )


def styles(contents: Contents) -> dict[str, str]:
    """Return the colour class of each version: by its number, if that colour is free.

    v3 has the same colour in each report and on the dashboards.
    """
    found, free = {}, [f"s{place}" for place in range(NUM_STYLES)]
    for each in contents.versions:
        number = version_order(each.version)[0]
        wanted = f"s{(number - 1) % 5 if number > 0 else 0}"
        found[each.version] = free.pop(free.index(wanted) if wanted in free else 0)
    return found


def escaped(text: str) -> str:
    """Return ``text`` as HTML; no line breaks before a ``%``."""
    return html.escape(text).replace(" %", "&nbsp;%")


def _headline(contents: Contents) -> Iterator[str]:
    found = headline(contents)
    yield f'<header class="{found.tone}">'
    yield f'<p class="of">Model comparison, {escaped(str(contents.scope.period))}</p>'
    yield f"<h1>{escaped(found.title)}</h1>"
    yield from (f"<p>{escaped(each)}</p>" for each in found.sentences)
    yield from (f'<p class="warning">{escaped(each)}</p>' for each in found.warnings)
    yield "</header>"


def _versions(contents: Contents) -> Iterator[str]:
    yield "<section>"
    yield "<h2>Versions</h2>"
    serving = {each.version for each in contents.versions if each.is_serving}
    style = styles(contents)
    for table in tables(contents):
        yield f"<h3>{escaped(table.title)}</h3>"
        yield from _rows(
            table.columns, (_version_row(r, style, serving) for r in table.rows)
        )
        yield f'<p class="note">{escaped(table.note)}</p>'
    yield "</section>"


def _version_row(
    row: Sequence[str], style: dict[str, str], serving: set[str]
) -> tuple[str, ...]:
    """Return a row as HTML: the version with its colour, and whether it is serving."""
    version, *cells = row
    mark = f'<i class="{style[version]}"></i>' if version in style else ""
    name = f"{mark}{escaped(version)}"
    if version in serving:
        name += ' <span class="serving">serving</span>'
    return (name, *map(escaped, cells))


def _rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table of HTML cells; each names its column, for narrow screens."""
    yield "<table>"
    heads = "".join(f'<th scope="col">{escaped(each)}</th>' for each in columns)
    yield f"<thead><tr>{heads}</tr></thead>"
    yield "<tbody>"
    for first, *cells in rows:
        row = [f'<th scope="row">{first}</th>']
        row += [
            f'<td data-of="{escaped(column)}">{cell}</td>'
            for column, cell in zip(columns[1:], cells, strict=True)
        ]
        yield f"<tr>{''.join(row)}</tr>"
    yield "</tbody>"
    yield "</table>"


def _charts(contents: Contents) -> Iterator[str]:
    yield "<section>"
    yield "<h2>Over time</h2>"
    legend = (
        f'<li><i class="{style}"></i>{escaped(version)}</li>'
        for version, style in styles(contents).items()
    )
    yield f'<ul class="legend">{"".join(legend)}</ul>'
    yield '<div class="charts">'
    for number, chart in enumerate(charts(contents)):
        yield "<figure>"
        yield (
            f"<figcaption><b>{escaped(chart.title)}</b> "
            f"<span>{escaped(chart.subtitle)}</span></figcaption>"
        )
        yield draw(chart, f"c{number}", styles(contents))
        yield "</figure>"
    yield "</div>"
    note = (
        f"Times are UTC. CTR is drawn from {MIN_COUNT} impressions per window, calibration "
        f"from {MIN_COUNT} clicks."
    )
    yield f'<p class="note">{note}</p>'
    yield "</section>"


def _alerts(contents: Contents) -> Iterator[str]:
    yield "<section>"
    yield "<h2>Alerts</h2>"
    if contents.alerts:
        table = alert_table(contents)
        rows = (tuple(map(escaped, row)) for row in table.rows)
        yield from _rows(table.columns, rows)
    elif contents.scope.num_alert_rules:
        yield f"<p>None of {contents.scope.num_alert_rules} alerts fired.</p>"
    else:
        yield "<p>No alert could fire: this Prometheus has no alert rules.</p>"
    yield "</section>"


def _data_and_settings(contents: Contents, made_s: float) -> Iterator[str]:
    yield "<section>"
    yield "<h2>Data and settings</h2>"
    yield "<dl>"
    for name, fact in _facts(contents):
        yield f"<div><dt>{escaped(name)}</dt><dd>{escaped(fact)}</dd></div>"
    yield "</dl>"
    yield "<h2>Caveats</h2>"
    yield "<ul>"
    yield from (f"<li>{escaped(each)}</li>" for each in _caveats(contents))
    yield "</ul>"
    yield "</section>"
    yield f"<footer>Generated {utc_minute(made_s)} UTC by srp4ctr monitor report</footer>"


def _facts(contents: Contents) -> Iterator[tuple[str, str]]:
    """Yield the name and value of what the report covers and of the settings used."""
    scope = contents.scope
    yield "Period", f"{scope.period} ({numbers.duration(scope.period.length_s)})"
    share = numbers.percent(min(1.0, scope.covered_share), 0)
    yield "Monitor data", f"{scope.covered}, data for {share} of the time"
    windows = "one window" if scope.num_windows == 1 else f"{scope.num_windows} windows"
    yield (
        "Impressions shown",
        f"{scope.events}, in {windows} of {numbers.duration(scope.window_s)}",
    )
    if isfinite(scope.label_window_s):
        yield (
            "Label window",
            f"{numbers.duration(scope.label_window_s)}: an impression waits this long for "
            "its click before it counts",
        )
    if isfinite(scope.price_per_core_hour):
        yield "Price per core-hour", f"{scope.price_per_core_hour:g} {scope.currency}"
    expected = numbers.decimal(100 * scope.expected_difference, 1)
    yield (
        "Confidence sequence",
        f"anytime-valid (mixture method), narrowest at {expected} percentage points",
    )
    yield "Alert rules", numbers.count(scope.num_alert_rules)


def _caveats(contents: Contents) -> Iterator[str]:
    """Yield what the figures leave out, and how reliable they are."""
    yield (
        "Provisional labels are excluded: a click is known at once, a missing click only "
        "when the label window has closed. Impressions that no model ranked are excluded."
    )
    yield (
        "The difference covers all ten-minute slots in which both versions served, up to "
        "two weeks back, and may include impressions from before this period. The tables "
        "cover this period only, whichever version served when."
    )
    yield (
        "Intervals treat impressions as independent. Users return, so the intervals are "
        "slightly too narrow."
    )
    yield (
        "AUC compares impressions of the same window. Each window's figures are as of its "
        "end: later corrections of labels are not included."
    )
    yield (
        "Cost is the CPU time of the scoring processes, without the feature store, the "
        "broker and GPUs. The price of re-encoding per candidate is an estimate: it "
        "assumes that time is proportional to FLOPs."
    )
    if left_out := contents.scope.left_out:
        named = ", ".join(left_out[-5:])
        more = f" and {len(left_out) - 5} others" if len(left_out) > 5 else ""
        yield f"Left out, because they had fewer impressions: {named}{more}."
