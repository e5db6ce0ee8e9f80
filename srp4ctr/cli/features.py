"""``srp4ctr features VERB``: register, show, check and erase features."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings, load

app = typer.Typer(
    help="Register, show and check the feature store; erase users.", no_args_is_help=True
)
out = Console()

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
    from srp4ctr.features.online.feast_store import apply
    from srp4ctr.features.tensors.schema import fingerprint

    settings = load()
    with audit_log(settings).recorded("features apply") as done:
        names = apply(settings.features)
        done.after = f"{len(names)} views, feature schema {fingerprint()}"
    for name in names:
        out.print(name)


@app.command("show")
def show(user: User, pseudonym: IsPseudonym = False) -> None:
    """Show a user's features, their age, and the events that they come from.

    Example:  srp4ctr features show 42
    """
    from srp4ctr.cli.tables.users import user_tables
    from srp4ctr.ops.erasure_requests import stored_id
    from srp4ctr.ops.store_reads import read_user

    settings = load()
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
            f"{found.wrong_rows} rows differ from the raw log: srp4ctr stream rebuild"
        )


def _check_served(settings: Settings, sample: int) -> None:
    from srp4ctr.cli.tables.served import served_tables
    from srp4ctr.features.bundles import request_log
    from srp4ctr.ops.promotion_service import checked_served
    from srp4ctr.training.skew.check import MOST_APART

    folder = Path(settings.triton.served_log.folder)
    requests = request_log.newest(folder, sample)
    if not requests:
        out.print(
            f"no served requests in {folder}: set triton.served_log.share in "
            "settings.toml, promote a bundle, and send requests with a request_id"
        )
        return
    with out.status(f"comparing {len(requests):,} requests with the raw log"):
        found = checked_served(settings, requests)
    for table in served_tables(found):
        out.print(table)
    worst = max(found.onnx_difference, found.torch_difference or 0.0)
    if worst > MOST_APART:
        raise ValueError(f"a served score differs by {worst:.2g} from its bundle's")


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
    from srp4ctr.ops import erasure_requests

    erasure_requests.forget(load(), user, wait_s, is_pseudonym=pseudonym)
    out.print(f"forgotten: {user}", markup=False)


@app.command("erase-forgotten")
def erase_forgotten(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be erased; change nothing."),
    ] = False,
) -> None:
    """Erase forgotten users from the raw log and from the served requests.

    Their impressions and clicks stay without a user, for the counters of items; the erasure
    requests stay too. Safe with running workers: run it every night. Kafka drops records by
    its own retention.

    Example:  srp4ctr features erase-forgotten --dry-run
    """
    from srp4ctr.ops import erasure_requests

    found = erasure_requests.erase(load(), dry_run=dry_run)
    served = "" if dry_run else f", {found.served:,} served requests removed"
    out.print(
        f"{'dry run: ' if dry_run else ''}{found.log.users:,} erasure requests; in "
        f"{found.log.files:,} files {found.log.removed:,} rows removed, "
        f"{found.log.anonymized:,} anonymized{served}"
    )
