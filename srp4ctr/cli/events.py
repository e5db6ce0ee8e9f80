"""``srp4ctr events VERB``: what producers run."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, track
from rich.table import Table

from srp4ctr.cli.tables.results import file_tables
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import load
from srp4ctr.streams import rejected, schemas
from srp4ctr.streams.event_files import FileReport, check_file, read_lines
from srp4ctr.streams.pseudonyms import read_pseudonyms
from srp4ctr.streams.publisher import EventPublisher
from srp4ctr.streams.topics import PUBLISHED_TOPICS, ensure_topics

app = typer.Typer(help="Publish and check events.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)

EventsFile = Annotated[Path, typer.Argument(help="JSON lines (.jsonl) or Parquet.")]


@app.command("publish")
def publish(
    path: EventsFile,
    backfill: Annotated[
        bool, typer.Option(help="They became known when they happened, not now.")
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="Publish nothing if a line would be rejected.")
    ] = False,
) -> None:
    """Publish the events in PATH; the stream rejects bad lines with their reason.

    With streams.pseudonym_key_file users go by their pseudonyms, and bad lines stay here.

    Example: srp4ctr events publish clicks.jsonl --backfill
    """
    settings = load()
    report = _check(path)
    if strict and report.bad_lines:
        raise ValueError("nothing was published (--strict)")
    ensure_topics(settings.kafka, PUBLISHED_TOPICS)
    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    with EventPublisher(settings.kafka, pseudonyms) as publisher:
        total = report.total + sum(report.rejected.values())
        lines = track(read_lines(path), "publish", total, console=err, transient=True)
        for line in lines:
            publisher.publish_raw(line.payload, backfill=backfill)
    bad = sum(report.rejected.values())
    published = f"published {publisher.published:,} messages"
    if pseudonyms:
        out.print(f"{published} under pseudonyms, {publisher.withheld:,} bad ones withheld")
    else:
        out.print(f"{published}, {bad:,} to be rejected")


@app.command("check")
def check(path: EventsFile) -> None:
    """Find what the stream would reject, with line numbers; exit status 1 if anything.

    Example: srp4ctr events check clicks.jsonl
    """
    report = _check(path)
    if report.rejected:
        raise ValueError(f"{sum(report.rejected.values())} bad lines in {path}")


@app.command("replay-rejected")
def replay_rejected(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go back; change nothing.")
    ] = False,
) -> None:
    """Put what today's rules accept of the dead letters back into the stream.

    Each goes to its right topic, under its right key, as of when it came first; the rest
    stays. Deploy the fix to the workers first. One replay at a time.

    Example: srp4ctr events replay-rejected --dry-run
    """
    settings = load()
    group = f"{settings.streams.group_id}-replay"
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("replay", total=None)
        report = rejected.replay_rejected(
            settings.kafka,
            group,
            dry_run=dry_run,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    out.print(_replay_table(report, dry_run))


@app.command("restore")
def restore(log_dir: Path) -> None:
    """Publish all of raw log LOG_DIR into a new, empty Kafka: what was known, and when.

    For a Kafka that was lost. Empty the store first, and set features.log_dir to a new
    folder: offsets begin anew. docs/backup.md has all the steps.

    Example: srp4ctr events restore .data/events.lost
    """
    from srp4ctr.streams import restoring

    settings = load()
    if log_dir.resolve() == Path(settings.features.log_dir).resolve():
        raise ValueError(
            f"{log_dir} is features.log_dir: move it away first, workers begin a new one"
        )
    with (
        audit_log(settings).recorded("events restore", str(log_dir)) as outcome,
        Progress(console=err, transient=True) as bar,
    ):
        task = bar.add_task("restore", total=None)
        done = restoring.restore(
            settings.kafka, log_dir, lambda count: bar.update(task, completed=count)
        )
        outcome.after = ", ".join(f"{done[topic]:,} {topic}" for topic in sorted(done))
    out.print(f"restored {outcome.after}")


@app.command("schema")
def schema() -> None:
    """Write the events' JSON Schema and AsyncAPI document anew.

    Example: srp4ctr events schema
    """
    for path in schemas.write_schemas(Path(schemas.__file__).parent / "schema"):
        out.print(str(path))


def _replay_table(report: rejected.ReplayReport, dry_run: bool) -> Table:
    """Return how many dead letters go back and how many stay, by reason."""
    table = Table(title="dead letters", title_justify="left", title_style="bold")
    for column in ("reason", "would go back" if dry_run else "put back", "stay"):
        table.add_column(column)
    replayed, kept = report.replayed, report.kept
    for reason in sorted(replayed.keys() | kept.keys()):
        table.add_row(escape(reason), f"{replayed[reason]:,}", f"{kept[reason]:,}")
    table.add_row("all", f"{replayed.total():,}", f"{kept.total():,}", style="bold")
    return table


def _check(path: Path) -> FileReport:
    """Show what the stream would make of ``path``, and return the report."""
    report = check_file(path, time.time_ns() // 1_000_000)
    for table in file_tables(report):
        out.print(table)
    return report
