"""``srp4ctr features VERB``: register, show, check and erase features."""

from typing import Annotated

import typer

from srp4ctr.cli.tables.console import err, out
from srp4ctr.settings import load

app = typer.Typer(
    help="Register, show and check the feature store; erase users.", no_args_is_help=True
)
NO_SERVED_REQUESTS = (
    "no served requests in {folder}: set triton.served_log.share in settings.toml, promote "
    "a bundle, and send requests with a request_id"
)

User = Annotated[str, typer.Argument(help="Id of the user, as in the events.")]
IsPseudonym = Annotated[
    bool, typer.Option("--pseudonym", help="USER is a pseudonym, not an id.")
]


@app.command("apply")
def apply_views() -> None:
    """Register the feature views with Feast.

    Running it again is harmless.

    Example:  srp4ctr features apply
    """
    from srp4ctr.ops.feature_store import register_views

    for name in register_views(load()):
        out.print(name)


@app.command("show")
def show(user: User, pseudonym: IsPseudonym = False) -> None:
    """Show a user's features and attributes, their age, and the events behind them.

    Example:  srp4ctr features show 42
    """
    from srp4ctr.cli.tables.users import user_tables
    from srp4ctr.ops.feature_store import read_user, stored_id

    settings = load("store")
    stored = stored_id(settings, user, pseudonym)
    for table in user_tables(read_user(settings.features, stored)):
        out.print(table)


@app.command("check")
def check(
    sample: Annotated[
        int, typer.Option(help="Number of users and items, or of served requests.")
    ] = 200,
    served: Annotated[
        bool,
        typer.Option(
            "--served", help="Compare served requests with training instead of the store."
        ),
    ] = False,
) -> None:
    """Compare the feature store with the raw log; the exit status is 1 if they differ.

    Safe with live traffic. `srp4ctr model promote` runs the same check, and the monitor
    exports the newest result.

    With --served, the newest requests that Triton has logged (setting
    triton.served_log.share) are compared: their tensors with those of training, their
    scores with those of their bundle.

    Example:  srp4ctr features check --sample 1000
    """
    from srp4ctr.cli.tables.results import check_table, served_tables
    from srp4ctr.ops import feature_store

    settings = load() if served else load("kafka", "store")
    if served:
        compared = feature_store.check_served(
            settings, sample, lambda found: out.print(*served_tables(found)), out.status
        )
        nothing = NO_SERVED_REQUESTS.format(folder=settings.triton.served_log.folder)
    else:
        compared = feature_store.check(
            settings, sample, lambda found: out.print(check_table(found))
        )
        nothing = f"nothing to compare: no events in {settings.features.raw_log}"
    if not compared:
        out.print(nothing)


@app.command("forget")
def forget(
    user: User,
    wait_s: Annotated[float, typer.Option(help="Seconds to wait for the worker.")] = 30.0,
    pseudonym: IsPseudonym = False,
) -> None:
    """Request the erasure of a user: sequence, counters and pending labels.

    All events until now are forgotten for good: late events, replays and rebuilds do not
    restore them. The raw log and the served requests keep the user's rows until the next
    `srp4ctr features erase-forgotten`.

    Example:  srp4ctr features forget 42
    """
    from srp4ctr.ops import feature_store

    feature_store.forget(load("kafka"), user, wait_s, is_pseudonym=pseudonym)
    out.print(f"forgotten: {user}", markup=False)


@app.command("erase-forgotten")
def erase_forgotten(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be erased; change nothing."),
    ] = False,
) -> None:
    """Erase forgotten users from the raw log, served requests and the store's file.

    Their impressions and clicks stay without a user, for the counters of items; the erasure
    requests stay too. Safe with running workers: run it every night. Kafka drops records by
    its own retention.

    Example:  srp4ctr features erase-forgotten --dry-run
    """
    from srp4ctr.ops import feature_store

    found = feature_store.erase(load(), dry_run=dry_run)
    served = "" if dry_run else f", {found.served:,} served requests removed"
    out.print(
        f"{'dry run: ' if dry_run else ''}{found.log.users:,} erasure requests; in "
        f"{found.log.folders:,} folders {found.log.removed:,} rows removed, "
        f"{found.log.anonymized:,} anonymized{served}"
    )
    if found.store:
        out.print(found.store, markup=False, soft_wrap=True)


@app.command("upgrade-log")
def upgrade_log() -> None:
    """Make Delta Lake tables of a raw log that a release before 0.3.0 has written.

    First stop all workers. Run it again after an error. The old files are removed when
    all their rows are in the tables.

    Example:  srp4ctr features upgrade-log
    """
    from rich.progress import Progress

    from srp4ctr.ops import feature_store

    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        rows = feature_store.upgrade_log(
            load(), lambda more: bar.update(task, advance=more)
        )
    out.print(f"moved: {rows}")
