"""``srp4ctr stream VERB``: what workers do."""

from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from srp4ctr.cli.tables.console import err, out
from srp4ctr.cli.tables.results import instant
from srp4ctr.errors import MistakeError
from srp4ctr.ops import stream_jobs
from srp4ctr.settings import load

app = typer.Typer(
    help="Turn events into sequences, counters and labels.", no_args_is_help=True
)


@app.command("run")
def run() -> None:
    """Run a stream worker until stopped (Ctrl-C).

    It folds events into each user's sequence and counters, and joins impressions and
    clicks to labels. Workers share the partitions of the topics.

    Example:  srp4ctr stream run
    """
    stream_jobs.run(load("kafka", "store"), err.print)


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
    attributes again; users keep theirs where the log lacks the beginning.

    Example:  srp4ctr stream rebuild --since 2026-11-01
    """
    begin = instant(since)  # first: what follows takes seconds to import
    settings = load("kafka", "store")
    columns = (TextColumn("rebuild"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("partitions"), console=err) as bar:
        task = bar.add_task("rebuild", total=None)

        def show(more: int, total: int) -> None:
            bar.update(task, total=total, advance=more)

        done = stream_jobs.rebuild(settings, begin, wait_s, show)
    out.print(f"rebuilt {done}, from the events since {since}")


@app.command("rewind")
def rewind(
    to: Annotated[
        list[str],
        typer.Option(
            metavar="PARTITION=OFFSET",
            help="Read this partition again from there. Default: the store's offsets.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be read again; change nothing."),
    ] = False,
) -> None:
    """Let stopped workers read again what the feature store's rows lack.

    The store knows up to which offset its rows are whole, and a dump of it does, too. A
    worker that starts on an older store goes back automatically; this command shows how
    far, or goes back to offsets that you name. Rows skip the events that they have. If
    Kafka no longer holds the offsets, use `srp4ctr stream rebuild`.

    Example:  srp4ctr stream rewind --dry-run
    """
    settings = load("kafka", "store")
    back = stream_jobs.rewind(settings, _offsets_of(to), dry_run=dry_run)
    verb = "would be read again" if dry_run else "are read again at the next start"
    for each in back:
        out.print(
            f"partition {each.partition}: {each.before - each.after:,} records from offset "
            f"{each.after} {verb}",
            soft_wrap=True,
        )
    if not back:
        out.print("nothing to read again: the store has all that workers have committed")


def _offsets_of(texts: list[str]) -> dict[int, int]:
    offsets = {}
    for text in texts:
        partition, _, offset = text.partition("=")
        if not (partition.isdecimal() and offset.isdecimal()):
            raise MistakeError(f"--to {text}: write PARTITION=OFFSET, as --to 0=1200")
        offsets[int(partition)] = int(offset)
    return offsets
