"""``srp4ctr monitor report``: the comparison of model versions as a file to send."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from srp4ctr.settings import load

out = Console()


def report(
    since: Annotated[
        str, typer.Option(help="30m, 24h, 7d, or a time as 2026-11-01T12:00 (UTC).")
    ] = "24h",
    until: Annotated[str | None, typer.Option(help="The same; without it: now.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.")
    ] = Path("report.html"),
) -> None:
    """Write the comparison of model versions as one HTML file, to send to someone.

    Is the new model better, and what does it cost? The file needs no access to this
    system, nor to any other. It is read from Prometheus.

    Example: srp4ctr monitor report --since 7d -o v12.html
    """
    from srp4ctr.monitoring.report.gathering import gather
    from srp4ctr.monitoring.report.page import page
    from srp4ctr.monitoring.report.period import read_period
    from srp4ctr.monitoring.report.series import Prometheus
    from srp4ctr.monitoring.report.verdict import headline

    settings, now_s = load(), time.time()
    period = read_period(since, until, now_s)
    prometheus = Prometheus(settings.monitoring.prometheus_url)
    with out.status(f"reading {prometheus.url}"):
        contents = gather(prometheus, period, settings.monitoring.expected_difference)
    text = page(contents, now_s)
    output.write_text(text, encoding="utf-8")
    found = headline(contents)
    out.print(f"[bold]{escape(found.title)}[/bold]", highlight=False)
    for sentence in found.sentences:
        out.print(sentence, markup=False, highlight=False)
    out.print(f"{output}: {len(text.encode()) / 1000:.0f} kB", markup=False)
