"""``srp4ctr events VERB``: import, publish, check and replay events."""

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace as replace_fields
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, track
from rich.table import Table

from srp4ctr.cli.json_output import AsJson, import_output, one_object
from srp4ctr.cli.tables.console import err, out
from srp4ctr.cli.tables.results import a_table, figures, file_tables, replay_table
from srp4ctr.errors import MistakeError, Srp4ctrError
from srp4ctr.ops import stream_jobs
from srp4ctr.ops.project.new_project import is_untouched
from srp4ctr.settings import load
from srp4ctr.streams.broker import dead_letters
from srp4ctr.streams.events import action_notes, file_import, json_schema
from srp4ctr.streams.events.file_import import FileReport
from srp4ctr.streams.events.pseudonymization import read_pseudonyms
from srp4ctr.streams.events.schema import now_ms, shared_codes
from srp4ctr.streams.imports import mapping as mappings
from srp4ctr.streams.imports.mapping import CsvForm, Mapping

if TYPE_CHECKING:  # not every role has DuckDB
    from srp4ctr.streams.imports.importing import ImportJob
    from srp4ctr.streams.imports.report import ImportReport

app = typer.Typer(help="Import, publish, check and replay events.", no_args_is_help=True)

EventsFile = Annotated[
    Path,
    typer.Argument(help="File of events: JSON lines (.jsonl) or Parquet (.parquet)."),
]
Files = Annotated[
    list[str] | None,
    typer.Argument(
        help="CSV (.gz too), JSON lines, Parquet; folders or quoted patterns. "
        "Default: none, with --formats."
    ),
]
MappingFile = Annotated[
    Path | None,
    typer.Option(help="Which column is what. Default: import.toml, if it is there."),
]
FormatName = Annotated[
    str | None, typer.Option("--format", help="A ready mapping. Default: none.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A key of the mapping: user=uid. Default: as it is.",
    ),
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", help="Write .jsonl or .parquet. Default: publish to Kafka."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and count; publish nothing.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave bad rows out, import the others.")
]
Guess = Annotated[
    bool, typer.Option("--guess", help="Write a mapping for FILES to read and change.")
]
Formats = Annotated[bool, typer.Option("--formats", help="List the ready mappings.")]
Show = Callable[["ImportReport"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """What was sent to Kafka."""

    report: "ImportReport"
    published: int
    to: str
    """Kafka's address."""
    pseudonyms: bool


@app.command("import")
def import_events(  # noqa: PLR0913  # a command's options, by name
    files: Files = None,
    mapping: MappingFile = None,
    format_: FormatName = None,
    set_: Settings = None,
    out_file: OutFile = None,
    dry_run: DryRun = False,
    skip_bad: SkipBad = False,
    guess: Guess = False,
    formats: Formats = False,
    as_json: AsJson = False,
) -> None:
    """Import files in your own columns as events.

    A mapping says which column is the user, the item and the time, and which rows are
    impressions, clicks or behaviours, and what items and users are: docs/import.md
    describes it. Nothing is published if a row is bad. A second import publishes the same
    events, which changes nothing.

    Example:  srp4ctr events import clicks.csv --format clicks --set time_unit=s
    """
    if as_json and (formats or guess):
        raise MistakeError("--json is for imports: leave out --formats and --guess")
    if formats:
        out.print(_format_table())
        return
    if not files:
        raise MistakeError("name the FILES to import (--help has an example)")
    if guess:
        form = mappings.changed(Mapping(), set_ or ()).csv
        _write_guess(files, mapping or Path(mappings.DEFAULT_MAPPING), form)
        return
    from srp4ctr.streams.imports.importing import ImportJob

    chosen = mappings.changed(_chosen(mapping, format_, bool(set_)), set_ or ())
    job = ImportJob(files=files, mapping=chosen, skip_bad=skip_bad, is_ready=bool(format_))
    (_import_as_json if as_json else _import)(job, out_file, dry_run)


@app.command("publish")
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


@app.command("check")
def check(path: EventsFile) -> None:
    """Find the lines of a file that the stream would reject.

    Prints line numbers and reasons. The exit status is 1 if there is a bad line.

    Example:  srp4ctr events check clicks.jsonl
    """
    report = _check(path)
    if report.rejected:
        raise Srp4ctrError(f"{report.num_rejected} bad lines in {path}")


@app.command("serve")
def serve() -> None:
    """Take events by HTTP until stopped (Ctrl-C), for producers without a Kafka client.

    POST /events takes one event, an array, or JSON lines, and answers when Kafka has
    acknowledged them. Producers send a token of the setting intake.token_file.

    Example:  srp4ctr events serve
    """
    stream_jobs.serve_intake(load("kafka"), err.print)


@app.command("replay-rejected")
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


@app.command("restore")
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


@app.command("schema")
def schema() -> None:
    """Write the JSON Schema of the events and the AsyncAPI document.

    Example:  srp4ctr events schema
    """
    for path in json_schema.write_schemas(Path(json_schema.__file__).parent / "schemas"):
        out.print(str(path), soft_wrap=True)


def _check(path: Path) -> FileReport:
    """Print which events are in ``path`` and which lines are bad; return the report."""
    report = file_import.check_file(path, time.time_ns() // 1_000_000)
    for table in file_tables(report):
        out.print(table)
    return report


def _import(job: "ImportJob", out_file: Path | None, dry_run: bool) -> None:
    """Import ``job``, and print its result for a person."""
    if dry_run:
        report = _imported(job, _print_report)
        out.print(f"{report.counts.total():,} events to import (--dry-run)")
    elif out_file:
        report = _imported(replace(job, out=out_file), _print_report)
        out.print(f"wrote {report.counts.total():,} events to {out_file}", soft_wrap=True)
    else:
        done = _publish(job, _print_report)
        hidden = " under pseudonyms" if done.pseudonyms else ""
        published = f"published {done.published:,} messages to {done.to}{hidden}"
        out.print(published, soft_wrap=True)


def _chosen(path: Path | None, name: str | None, is_set: bool) -> Mapping:
    """Return the mapping that the options name, or ``import.toml``."""
    if name:
        if path:
            raise MistakeError("--format and --mapping: one of them")
        return mappings.ready_format(name)
    default = Path(mappings.DEFAULT_MAPPING)
    if path or default.is_file():
        err.print(f"mapping: {path or default}", highlight=False)
        return mappings.read_mapping(path or default)
    if is_set:
        return Mapping()
    raise MistakeError(
        "which column is what? `srp4ctr events import --guess FILE` writes a mapping to "
        "read and change; --formats lists those that are ready"
    )


def _import_as_json(job: "ImportJob", out_file: Path | None, dry_run: bool) -> None:
    """Import ``job``, and print its result as JSON; of bad rows, too."""
    with one_object() as answer:

        def show(report: "ImportReport") -> None:
            if report.num_bad and not job.skip_bad:
                answer.print(import_output(report, "refused", _notes(report)))

        if dry_run:
            report = _imported(job, show)
            result = import_output(report, "dry_run", _notes(report))
        elif out_file:
            report, to = _imported(replace(job, out=out_file), show), str(out_file)
            result = import_output(report, "written", _notes(report), to=to)
        else:
            done = _publish(job, show)
            result = replace_fields(
                import_output(done.report, "published", _notes(done.report), to=done.to),
                published=done.published,
                pseudonyms=done.pseudonyms,
            )
        answer.print(result)


def _imported(job: "ImportJob", show: Show) -> "ImportReport":
    """Import ``job`` under a line of progress, ``show`` its report, refuse bad rows."""
    from srp4ctr.streams.imports.importing import import_files
    from srp4ctr.streams.imports.report import refuse_bad

    columns = (SpinnerColumn(), TextColumn("import {task.completed:,} rows"))
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar:
        task = bar.add_task("import", total=None)
        report = import_files(job, lambda rows: bar.update(task, completed=rows))
    show(report)
    refuse_bad(report, job.skip_bad)
    return report


def _print_report(report: "ImportReport") -> None:
    """Print what came of an import."""
    for table in _report_tables(report):
        out.print(table)
    for note in [*report.notes, *_stale(report.last_ms)]:
        out.print(f"note: {escape(note)}", highlight=False)
    for line in _unassigned(report):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    for payload in report.preview:
        out.print(payload.decode(), markup=False, highlight=False, soft_wrap=True)


def _notes(report: "ImportReport") -> list[str]:
    """Return the notes of an import for a script."""
    codes = "\n".join(_unassigned(report)).removeprefix("note: ")
    return [*report.notes, *_stale(report.last_ms), *filter(None, [codes])]


def _publish(job: "ImportJob", show: Show) -> _Published:
    """Publish once all rows have been read: a bad one is found before the first is sent."""
    settings = load("kafka")
    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    with TemporaryDirectory(prefix="srp4ctr-import-") as folder:
        path = Path(folder) / "events.jsonl"
        report = _imported(replace(job, out=path), show)
        lines = file_import.read_lines(path)
        total = report.counts.total()
        shown = track(lines, "publish", total, console=err, transient=True)
        done = file_import.publish_lines(shown, settings.kafka, pseudonyms, backfill=True)
    return _Published(
        report=report,
        published=done.published,
        to=settings.kafka.bootstrap,
        pseudonyms=bool(pseudonyms),
    )


def _write_guess(files: Sequence[str], target: Path, form: CsvForm) -> None:
    from srp4ctr.streams.imports.guess import guess_mapping

    if target.exists() and not is_untouched(target):
        raise MistakeError(
            f"{target} exists already: remove it, or name another file with --mapping"
        )
    text = guess_mapping(files, form)
    target.write_text(text, encoding="utf-8")
    out.print(text, markup=False, highlight=False, soft_wrap=True)
    out.print(f"wrote {target}: read it, change it, then import", highlight=False)


def _report_tables(report: "ImportReport") -> Iterator[Table]:
    """Yield the events by kind, then what was dropped and why."""
    rows = [(escape(name), f"{n:,}") for name, n in report.counts.most_common()]
    yield a_table(f"{report.rows:,} rows", "kind", figures("events"), rows=rows)
    if report.first_ms is not None and report.last_ms is not None:
        first, last = (_day(ms) for ms in (report.first_ms, report.last_ms))
        out.print(f"from {first} to {last} (UTC)", highlight=False)
    dropped = [
        (reason, f"{each.rows:,}", escape(each.detail), escape(", ".join(each.places)))
        for reason, each in report.dropped.items()
    ]
    if dropped:
        columns = ("reason", figures("rows"), "what is wrong", "the first")
        yield a_table("not imported", *columns, rows=dropped)


def _stale(last_ms: int | None) -> Iterator[str]:
    """Yield that serving would read none of these events, if they are as old as that."""
    days = load().features.sequence_ttl_days
    age = (now_ms() - last_ms) / 86_400_000 if last_ms is not None else 0.0
    if age > 7:
        yield (
            f"the newest event is {age:,.0f} days old: rank as of its time, by `srp4ctr "
            "model rank USER ITEM --at TIME` or by request_time_ms in a call"
        )
    if age > days:
        yield (
            f"the newest event is {age:,.0f} days old, and serving reads no behaviour that "
            f"is older than {days:g}: set features.sequence_ttl_days before a refresh"
        )


def _unassigned(report: "ImportReport") -> Iterator[str]:
    """Yield the lines of settings that give the file's actions codes of their own."""
    codes = load().streams.action_codes
    actions = [name.partition(" ")[2] for name in report.counts if " " in name]
    if not (lines := action_notes.code_lines(actions, codes)):
        return
    shared = "; ".join(map(" and ".join, shared_codes(actions, codes).values()))
    one = f": {shared} are one action to the model" if shared else ""
    where = f" to {action_notes.TABLE}" if codes else ""
    yield f"note: actions without a code of their own share 16 by hash{one}."
    yield f"Before they are published, add{where} in settings.toml:"
    yield from (lines if codes else [action_notes.TABLE, *lines])


def _format_table() -> Table:
    found = mappings.ready_formats().items()
    rows = [(name, escape(each.description)) for name, each in found]
    return a_table("ready mappings (--format)", "name", "files", rows=rows)


def _day(ms: int) -> str:
    at = dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=ms)
    return f"{at:%Y-%m-%d %H:%M}"
