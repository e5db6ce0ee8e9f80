"""``srp4ctr monitor VERB``: serve live quality and cost, show them, report on them."""

from pathlib import Path
from typing import Annotated

import typer

from srp4ctr.cli.tables.console import err, out
from srp4ctr.settings import load

app = typer.Typer(
    help="Serve, show and report the live quality and cost of models.",
    no_args_is_help=True,
)


@app.command("run")
def run() -> None:
    """Serve live quality and cost to Prometheus until stopped (Ctrl-C).

    The address is http://monitoring.host:monitoring.port/metrics.

    Example:  srp4ctr monitor run
    """
    from srp4ctr.ops import monitor_jobs

    monitor_jobs.run(load("kafka"), err.print)


@app.command("open")
def open_page(
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="Port on 127.0.0.1; 0 takes any free one. "
            "Default: setting monitoring.page_port.",
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option(help="Open the page in your web browser.")
    ] = True,
) -> None:
    """Serve the dashboards and the playground on this machine until stopped (Ctrl-C).

    Example:  srp4ctr monitor open --no-browser
    """
    from srp4ctr.playground.page import open_page

    def say(address: str) -> None:
        typer.echo(f"page: {address}  (Ctrl-C stops)")

    open_page(load("store", "triton", "prometheus"), port, browser, say)


@app.command("report")
def report(
    since: Annotated[
        str,
        typer.Option(
            help="Start of the report: a length (30m, 24h, 7d) before its end, or a time "
            "in UTC (2026-11-01T12:00)."
        ),
    ] = "24h",
    until: Annotated[
        str | None,
        typer.Option(
            help="End of the report: a length before now, or a time in UTC. Default: now."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write.")
    ] = Path("report.html"),
) -> None:
    """Write all dashboards over a period as one HTML file that you can send.

    The figures come from Prometheus; the file needs no network and no script.

    Example:  srp4ctr monitor report --since 7d -o v12.html
    """
    from srp4ctr.ops import monitor_jobs

    with out.status("reading Prometheus"):
        period = monitor_jobs.write_report(load("prometheus"), since, until, output)
    size_kb = output.stat().st_size / 1000
    out.print(f"{output}: {size_kb:.0f} kB, {period}", markup=False, soft_wrap=True)
