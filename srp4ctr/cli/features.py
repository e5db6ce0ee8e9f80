"""``srp4ctr features VERB``: what the store holds, and whether it is right."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings, load

app = typer.Typer(help="The feature store.", no_args_is_help=True)
out = Console()

IsPseudonym = Annotated[
    bool, typer.Option("--pseudonym", help="USER is a pseudonym, not an id.")
]


@app.command("apply")
def apply_views() -> None:
    """Register the feature views with Feast; doing it again is harmless.

    Example: srp4ctr features apply
    """
    from srp4ctr.features.schema import fingerprint
    from srp4ctr.features.store import apply

    settings = load()
    with audit_log(settings).recorded("features apply") as done:
        names = apply(settings.features)
        done.after = f"{len(names)} views, feature schema {fingerprint()}"
    for name in names:
        out.print(name)


@app.command("show")
def show(user: str, pseudonym: IsPseudonym = False) -> None:
    """Show what the store holds of USER now, how old it is, and where it came from.

    Example: srp4ctr features show 42
    """
    from srp4ctr.cli.tables.users import user_tables

    settings = load()
    for table in user_tables(settings.features, _stored(settings, user, pseudonym)):
        out.print(table)


@app.command("check")
def check(
    sample: Annotated[int, typer.Option(help="At most so many users and items.")] = 200,
    served: Annotated[
        bool, typer.Option("--served", help="So many served requests, against training's.")
    ] = False,
) -> None:
    """Compare the store with what the raw log makes of the same events; exit 1 if wrong.

    Safe beside live traffic. `srp4ctr model promote` does the same, and the monitor shows
    the newest result. With --served: are the tensors of the newest requests that Triton
    kept (triton.served_log.share) what training makes of them, and their scores what the
    bundle says?

    Example: srp4ctr features check --sample 1000
    """
    from srp4ctr.cli.tables.results import check_table
    from srp4ctr.ops.promotion_service import checked

    settings = load()
    if served:
        _check_served(settings, sample)
        return
    found = checked(settings, sample)
    if not found.rows + found.waiting + found.partitions_left_out:
        out.print(f"nothing to compare: no events in {settings.features.log_dir}")
        return
    out.print(check_table(found))
    if found.wrong_rows:
        raise ValueError(
            f"{found.wrong_rows} rows are not what the log says: srp4ctr stream rebuild"
        )


def _check_served(settings: Settings, sample: int) -> None:
    from srp4ctr.cli.tables.served import served_tables
    from srp4ctr.features import served_log
    from srp4ctr.features.json_files import write_json
    from srp4ctr.training.reports import SERVED_CHECK_FILE, ServedReport
    from srp4ctr.training.served import MOST_APART, check_served

    folder = Path(settings.triton.served_log.folder)
    requests = [served_log.read(path) for path in served_log.newest(folder, sample)]
    if not requests:
        out.print(
            f"no served requests in {folder}: set triton.served_log.share in "
            "settings.toml, promote a bundle, and ask with a request_id"
        )
        return
    parts = (settings.training, settings.features, settings.streams)
    with out.status(f"{len(requests):,} requests against the event log"):
        found = check_served(requests, *parts)
    report = ServedReport(
        checked_at_ms=round(time.time() * 1000),
        requests=found.requests,
        mean_shift=found.shift_of,
    )
    write_json(
        Path(settings.features.log_dir) / SERVED_CHECK_FILE, report
    )  # the monitor shows it
    for table in served_tables(found):
        out.print(table)
    worst = max(found.onnx_difference, found.torch_difference or 0.0)
    if worst > MOST_APART:
        raise ValueError(
            f"a score that was served is {worst:.2g} from what its bundle says"
        )


@app.command("forget")
def forget(
    user: str,
    wait_s: Annotated[float, typer.Option(help="Wait so long for the worker.")] = 30.0,
    pseudonym: IsPseudonym = False,
) -> None:
    """Forget all that USER did until now: sequence, counters, waiting labels.

    It stays forgotten: what comes late or is replayed or rebuilt does not bring it back.
    The raw log and what was served still have it until features erase-forgotten.

    Example: srp4ctr features forget 42
    """
    from srp4ctr.streams.operations import request_forgetting, wait_until_read

    settings = load()
    with audit_log(settings).recorded("features forget") as done:
        stored = _stored(settings, user, pseudonym)
        offsets = request_forgetting(settings.kafka, stored)
        # The wish itself, not who wished it: this line outlives the raw log's.
        done.subject = ", ".join(f"{s.topic} {s.partition}@{offsets[s]}" for s in offsets)
        group = settings.streams.group_id
        if not wait_until_read(settings.kafka, group, offsets, lambda _: None, wait_s):
            raise ValueError(
                f"asked, but no worker has done it after {wait_s:g} s: it is done as soon "
                "as one runs (srp4ctr stream run)"
            )
    out.print(f"forgotten: {user}", markup=False)


@app.command("erase-forgotten")
def erase_forgotten(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; change nothing.")
    ] = False,
) -> None:
    """Take all that users asked to forget out of the raw log and of what was served.

    Impressions and clicks stay as nobody's, for items' counters; the wishes stay. Safe
    beside running workers; run it every night. Kafka drops records by its own retention.

    Example: srp4ctr features erase-forgotten --dry-run
    """
    from srp4ctr.streams import erasure

    settings = load()
    log_dir = Path(settings.features.log_dir)
    if dry_run:
        found, kept = erasure.erase_forgotten(log_dir, dry_run=True), 0
    else:
        with audit_log(settings).recorded("features erase-forgotten") as done:
            found = erasure.erase_forgotten(log_dir)
            kept = _erase_served(settings, log_dir)
            done.after = f"{found.files} files, {kept} served requests"
    served = "" if dry_run else f", {kept:,} served requests removed"
    out.print(
        f"{'to do: ' if dry_run else ''}{found.users:,} users asked to be forgotten; in "
        f"{found.files:,} files {found.removed:,} rows removed, {found.made_nobodys:,} "
        f"made nobody's{served}"
    )


def _erase_served(settings: Settings, log_dir: Path) -> int:
    from srp4ctr.features import served_log
    from srp4ctr.streams.erasure import is_forgotten, wishes_in

    wishes = wishes_in(log_dir)
    return served_log.remove(
        Path(settings.triton.served_log.folder),
        lambda each: is_forgotten(wishes, each.user_id, each.time_ms),
    )


def _stored(settings: Settings, user: str, is_pseudonym: bool) -> str:
    """Return how the stream and the store know ``user``."""
    from srp4ctr.streams.pseudonyms import read_pseudonyms

    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    return pseudonyms.of(user) if pseudonyms and not is_pseudonym else user
