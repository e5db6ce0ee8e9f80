"""``srp4ctr features VERB``: register, show, check and erase features."""

from typing import TYPE_CHECKING, Annotated

import typer

from srp4ctr.cli import json_output
from srp4ctr.cli.json_output import AsJson
from srp4ctr.cli.tables.console import err, out
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.settings import Settings, load

if TYPE_CHECKING:  # torch: not every role has it
    from srp4ctr.training.skew.check import ServedCheck

app = typer.Typer(
    help="Register, show and check the feature store; erase users.", no_args_is_help=True
)
NO_SERVED_REQUESTS = (
    "no served requests in {folder}: set triton.served_log.share in settings.toml, promote "
    "a bundle, and send requests with a request_id"
)

NO_EVENTS = "nothing to compare: no events in {folder}"

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
    as_json: AsJson = False,
) -> None:
    """Compare the feature store with the raw log; the exit status is 1 if they differ.

    Safe with live traffic. `srp4ctr model promote` runs the same check, and the monitor
    exports the newest result.

    With --served, the newest requests that Triton has logged (setting
    triton.served_log.share) are compared: their tensors with those of training, their
    scores with those of their bundle.

    Example:  srp4ctr features check --sample 1000
    """
    settings = load() if served else load("kafka", "store")
    if not (_check_served if served else _check_store)(settings, sample, as_json):
        where = settings.triton.served_log.folder if served else settings.features.raw_log
        nothing = (NO_SERVED_REQUESTS if served else NO_EVENTS).format(folder=where)
        if as_json:
            json_output.print_line(json_output.nothing_compared(nothing))
        else:
            out.print(nothing)


def _check_store(settings: Settings, sample: int, as_json: bool) -> bool:
    """Print how the store differs; return whether there was something to compare."""
    from srp4ctr.cli.tables.results import check_table
    from srp4ctr.ops import feature_store

    with json_output.one_object() as answer:

        def show(found: FeatureCheck) -> None:
            if as_json:
                answer.print(json_output.store_check_output(found))
            else:
                out.print(check_table(found))

        return feature_store.check(settings, sample, show)


def _check_served(settings: Settings, sample: int, as_json: bool) -> bool:
    """Print how served requests differ; return whether there were any."""
    from srp4ctr.cli.tables.results import served_tables
    from srp4ctr.ops import feature_store

    with json_output.one_object() as answer:

        def show(found: "ServedCheck") -> None:
            if as_json:
                answer.print(json_output.served_check_output(found))
            else:
                out.print(*served_tables(found))

        status = (err if as_json else out).status
        return feature_store.check_served(settings, sample, show, status)


@app.command("forget")
def forget(
    user: User,
    wait_s: Annotated[float, typer.Option(help="Seconds to wait for the worker.")] = 30.0,
    pseudonym: IsPseudonym = False,
) -> None:
    """Request the erasure of a user: sequence, counters and pending labels.

    All events until now are forgotten permanently: late events, replays and rebuilds do not
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
