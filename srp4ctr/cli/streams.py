"""``srp4ctr events VERB`` and ``srp4ctr stream VERB``: events, and what workers do."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, track

from srp4ctr.cli.event_import import import_events
from srp4ctr.cli.tables.console import err, out
from srp4ctr.cli.tables.results import file_tables, instant, replay_table
from srp4ctr.errors import MistakeError, Srp4ctrError
from srp4ctr.ops import stream_jobs
from srp4ctr.settings import load
from srp4ctr.streams.broker import dead_letters
from srp4ctr.streams.events import file_import, json_schema
from srp4ctr.streams.events.file_import import FileReport
from srp4ctr.streams.events.pseudonymization import read_pseudonyms

events = typer.Typer(help="Import, publish, check and replay events.", no_args_is_help=True)
importing = events.command("import")(import_events)
stream = typer.Typer(
    help="Turn events into sequences, counters and labels.", no_args_is_help=True
)

EventsFile = Annotated[
    Path,
    typer.Argument(help="File of events: JSON lines (.jsonl) or Parquet (.parquet)."),
]


@events.command("publish")
def publish(
    path: EventsFile,
    backfill: Annotated[
        bool,
        typer.Option(
            help="Timestamp each event at the time when it happened instead of now."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="Publish nothing if the stream would reject a line.")
    ] = False,
) -> None:
    """Publish the events of a file.

    The stream moves bad lines to the dead letters, with the reason. With the setting
    streams.pseudonym_key_file, user ids are replaced by pseudonyms before they leave this
    machine, and bad lines are not published.

    Example:  srp4ctr events publish clicks.jsonl --backfill
    """
    settings = load("kafka")
    report = _check(path)
    if strict and report.bad_lines:
        raise MistakeError("nothing was published (--strict)")
    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    total = report.total + report.num_rejected
    lines = file_import.read_lines(path)
    done = file_import.publish_lines(
        track(lines, "publish", total, console=err, transient=True),
        settings.kafka,
        pseudonyms,
        backfill=backfill,
    )
    published = f"published {done.published:,} messages to {settings.kafka.bootstrap}"
    if pseudonyms:
        out.print(f"{published} under pseudonyms, {done.withheld:,} bad lines withheld")
    else:
        out.print(f"{published}, {report.num_rejected:,} to be rejected")


@events.command("check")
def check(path: EventsFile) -> None:
    """Find the lines of a file that the stream would reject.

    Prints line numbers and reasons. The exit status is 1 if there is a bad line.

    Example:  srp4ctr events check clicks.jsonl
    """
    report = _check(path)
    if report.rejected:
        raise Srp4ctrError(f"{report.num_rejected} bad lines in {path}")


@events.command("serve")
def serve() -> None:
    """Take events by HTTP until stopped (Ctrl-C), for producers without a Kafka client.

    POST /events takes one event, an array, or JSON lines, and answers when Kafka has
    acknowledged them. Producers send a token of the setting intake.token_file.

    Example:  srp4ctr events serve
    """
    stream_jobs.serve_intake(load("kafka"), err.print)


@events.command("replay-rejected")
def replay_rejected(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be replayed; change nothing."),
    ] = False,
) -> None:
    """Replay the dead letters that today's rules accept.

    Each goes to its topic, under its key, with its first timestamp; the others stay. Deploy
    the fix to the workers first. Run one replay at a time.

    Example:  srp4ctr events replay-rejected --dry-run
    """
    settings = load("kafka")
    group = f"{settings.streams.group_id}-replay"
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("replay", total=None)
        report = dead_letters.replay_rejected(
            settings.kafka,
            group,
            dry_run=dry_run,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    out.print(replay_table(report, dry_run))


@events.command("restore")
def restore(
    log: Annotated[
        str,
        typer.Argument(help="Folder or address of a raw log that no worker writes."),
    ],
) -> None:
    """Publish a whole raw log into a new, empty Kafka, with the original timestamps.

    Use it after the loss of Kafka. First empty the feature store and set features.log_dir
    or log_uri to a new place, because offsets start again. docs/backup.md lists all steps.

    Example:  srp4ctr events restore .data/events.lost
    """
    settings = load("kafka")
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("restore", total=None)
        done = stream_jobs.restore(
            settings, log, lambda count: bar.update(task, completed=count)
        )
    out.print(f"restored {done}")


@events.command("schema")
def schema() -> None:
    """Write the JSON Schema of the events and the AsyncAPI document.

    Example:  srp4ctr events schema
    """
    for path in json_schema.write_schemas(Path(json_schema.__file__).parent / "schemas"):
        out.print(str(path), soft_wrap=True)


@stream.command("run")
def run() -> None:
    """Run a stream worker until stopped (Ctrl-C).

    It folds events into each user's sequence and counters, and joins impressions and
    clicks to labels. Workers share the partitions of the topics.

    Example:  srp4ctr stream run
    """
    stream_jobs.run(load("kafka", "store"), err.print)


@stream.command("rebuild")
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


@stream.command("rewind")
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
    worker that starts on an older store goes back by itself; this command shows how far,
    or goes back to offsets that you name. Rows skip the events that they have. If Kafka no
    longer holds the offsets, use `srp4ctr stream rebuild`.

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


def _check(path: Path) -> FileReport:
    """Print which events are in ``path`` and which lines are bad; return the report."""
    report = file_import.check_file(path, time.time_ns() // 1_000_000)
    for table in file_tables(report):
        out.print(table)
    return report
