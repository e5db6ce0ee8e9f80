"""The contents of a report → one HTML file that asks nobody for anything.

No script, no address, no font: it opens from a mail, and looks the same in ten years.
"""

import html
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files

from srp4ctr.monitoring.report.caveats import alert_row, facts, small_print
from srp4ctr.monitoring.report.charts import charts, draw
from srp4ctr.monitoring.report.period import minute
from srp4ctr.monitoring.report.prometheus.promql import FEWEST
from srp4ctr.monitoring.report.report_contents import Contents
from srp4ctr.monitoring.report.tables import tables
from srp4ctr.monitoring.report.verdict import headline
from srp4ctr.monitoring.report.version_comparison import by_age

# Whatever a label may say, nothing is fetched and nothing runs.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
NUM_STYLES = 6
ALERT_COLUMNS = ("Alert", "About", "Severity", "Fired (UTC)", "In all")


def page(contents: Contents, made_s: float) -> str:
    """Return the file's text."""
    title = escaped(headline(contents).title)
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        _verdict(contents),
        _versions(contents),
        _charts(contents),
        _alerts(contents),
        _grounds(contents, made_s),
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
    """Return the class of each version's colour: its last digit's, if that is free.

    So v3 looks alike in a report of yesterday, of today, and on the dashboards.
    """
    found, free = {}, [f"s{place}" for place in range(NUM_STYLES)]
    for each in contents.versions:
        number = by_age(each.version)[0]
        wanted = f"s{(number - 1) % 5 if number > 0 else 0}"
        found[each.version] = free.pop(free.index(wanted) if wanted in free else 0)
    return found


def escaped(text: str) -> str:
    """Return ``text`` as HTML that says no more than it; no line ends before a ``%``."""
    return html.escape(text).replace(" %", "&nbsp;%")


def _verdict(contents: Contents) -> Iterator[str]:
    found = headline(contents)
    yield f'<header class="{found.tone}">'
    yield f'<p class="of">Model comparison, {escaped(str(contents.grounds.period))}</p>'
    yield f"<h1>{escaped(found.title)}</h1>"
    yield from (f"<p>{escaped(each)}</p>" for each in found.sentences)
    yield from (f'<p class="caution">{escaped(each)}</p>' for each in found.cautions)
    yield "</header>"


def _versions(contents: Contents) -> Iterator[str]:
    yield "<section>"
    yield "<h2>Versions</h2>"
    serving = {each.version for each in contents.versions if each.is_serving}
    style = styles(contents)
    for table in tables(contents):
        yield f"<h3>{escaped(table.title)}</h3>"
        yield from _rows(table.columns, (_marked(r, style, serving) for r in table.rows))
        yield f'<p class="note">{escaped(table.note)}</p>'
    yield "</section>"


def _marked(
    row: Sequence[str], style: dict[str, str], serving: set[str]
) -> tuple[str, ...]:
    """Return a row as HTML: the version with its colour, and whether it serves."""
    version, *cells = row
    mark = f'<i class="{style[version]}"></i>' if version in style else ""
    name = f"{mark}{escaped(version)}"
    if version in serving:
        name += ' <span class="serves">serves</span>'
    return (name, *map(escaped, cells))


def _rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table of ``rows`` that are HTML; each cell knows its column, for a phone."""
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
        f"Times are UTC. A CTR of fewer than {FEWEST} impressions is not drawn, nor a "
        "calibration of fewer clicks."
    )
    yield f'<p class="note">{note}</p>'
    yield "</section>"


def _alerts(contents: Contents) -> Iterator[str]:
    grounds = contents.grounds
    yield "<section>"
    yield "<h2>Alerts</h2>"
    if contents.alerts:
        rows = (alert_row(each, grounds.heard) for each in contents.alerts)
        yield from _rows(ALERT_COLUMNS, (tuple(map(escaped, row)) for row in rows))
    elif grounds.num_alert_rules:
        yield f"<p>None of {grounds.num_alert_rules} alerts fired.</p>"
    else:
        yield "<p>No alert could fire: this Prometheus has no alert rules.</p>"
    yield "</section>"


def _grounds(contents: Contents, made_s: float) -> Iterator[str]:
    yield "<section>"
    yield "<h2>What was watched</h2>"
    yield "<dl>"
    for name, fact in facts(contents):
        yield f"<div><dt>{escaped(name)}</dt><dd>{escaped(fact)}</dd></div>"
    yield "</dl>"
    yield "<h2>Small print</h2>"
    yield "<ul>"
    yield from (f"<li>{escaped(each)}</li>" for each in small_print(contents))
    yield "</ul>"
    yield "</section>"
    yield f"<footer>Made {minute(made_s)} UTC by srp4ctr monitor report</footer>"
