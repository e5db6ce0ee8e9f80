"""``srp4ctr stream VERB``: run a worker, or rebuild the feature store from the log."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from srp4ctr.cli.tables.dates import instant
from srp4ctr.ops import stream_jobs
from srp4ctr.settings import load

app = typer.Typer(
    help="Turn events into sequences, counters and labels.", no_args_is_help=True
)
out = Console()
err = Console(stderr=True)


@app.command("run")
def run() -> None:
    """Run a stream worker until stopped (Ctrl-C).

    It folds events into each user's sequence and counters, and joins impressions and
    clicks to labels. Workers share the partitions of the topics.

    Example:  srp4ctr stream run
    """
    stream_jobs.run(load(), err.print)


@app.command("rebuild")
def rebuild(
    since: Annotated[
        str,
        typer.Option(
            help="Use only events from this time on: 2026-11-01 or 2026-11-01T12:00 (UTC)."
        ),
    ] = "1970-01-01",
    wait_s: Annotated[float, typer.Option(help="Seconds to wait for the workers.")] = 600.0,
) -> None:
    """Rebuild the feature store from the raw log, by the running workers.

    Traffic continues meanwhile. Each user and item with an event since that time gets a
    row made of only those events; the others keep their rows. Items get their newest
    attributes again.

    Example:  srp4ctr stream rebuild --since 2026-11-01
    """
    begin = instant(since)  # first: what follows takes seconds to import
    columns = (TextColumn("rebuild"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("partitions"), console=err) as bar:
        task = bar.add_task("rebuild", total=None)

        def show(more: int, total: int) -> None:
            bar.update(task, total=total, advance=more)

        done = stream_jobs.rebuild(load(), begin, wait_s, show)
    out.print(f"rebuilt {done}, from the events since {since}")
