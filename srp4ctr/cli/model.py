"""``srp4ctr model VERB``: train, compare, promote and ask models."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings, load

app = typer.Typer(help="Train, compare, promote and ask models.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)
if TYPE_CHECKING:  # a stream worker has no torch
    from srp4ctr.training.refresh import RefreshOptions
    from srp4ctr.training.reports import RefreshReport

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


@app.command("refresh")
def refresh_model(
    promote: Annotated[bool, typer.Option(help="Serve the bundle if it passes.")] = True,
    every: Annotated[
        str | None, typer.Option(help="Again and again: every 30m, 1h, 2d.")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Do not go on from the last bundle.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if there is nothing new.")
    ] = False,
) -> None:
    """Learn what is new since the last bundle; calibrate, export, judge, and promote.

    Killed at any moment, the next refresh goes on where it was. Its curves:
    tensorboard --logdir .data/bundles/logs

    Several processes, or GPUs, that share each batch:
    torchrun --nproc-per-node 2 -m srp4ctr.cli model refresh

    Example: srp4ctr model refresh --every 1h
    """
    from srp4ctr.training.parallel import joined, yield_to_serving
    from srp4ctr.training.refresh import RefreshOptions  # torch: 3 s
    from srp4ctr.training.stages import run_worker

    settings = load()
    yield_to_serving(settings.training)
    with joined() as processes:
        if not processes.is_first:
            run_worker(settings.training, processes, from_scratch)
            return
        if every and processes.count > 1:
            raise ValueError("--every is for one process: start torchrun again and again")
        options = RefreshOptions(
            from_scratch=from_scratch, force=force, processes=processes
        )
        _take_turns(settings, options, promote, every)


def _take_turns(
    settings: Settings, options: "RefreshOptions", promote: bool, every: str | None
) -> None:
    """Refresh once, or again and again, and show each report."""
    from srp4ctr.cli.tables.models import report_tables
    from srp4ctr.ops import refresh_job
    from srp4ctr.ops.waiting import ended_by_sigterm

    interval_s = refresh_job.seconds_of(every) if every else 0.0

    def turn() -> None:
        report = refresh_job.take_turn(
            lambda: _refresh(settings, options, promote),
            Path(settings.training.bundles_dir),
            interval_s,
        )
        for table in report_tables(report):
            out.print(table)

    with ended_by_sigterm():
        if every:
            refresh_job.repeat(turn, interval_s, err.print)
        turn()


def _refresh(
    settings: Settings, options: "RefreshOptions", promote: bool
) -> "RefreshReport":
    from srp4ctr.cli.tables.console import listener, progress_bars
    from srp4ctr.ops.promotion_service import promoter, serving_folder
    from srp4ctr.training.refresh import refresh

    with progress_bars(out) as bars:
        options = replace(
            options,
            promote=promoter(settings) if promote else None,
            serving=serving_folder(settings),
            progress=listener(bars),
        )
        return refresh(settings.training, settings.features, settings.streams, options)


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the bundles: window, quality, cost, gates, and which one serves.

    Example: srp4ctr model list
    """
    from srp4ctr.cli.tables.models import bundles_table, described

    found = described(load())
    _show(found, as_json, bundles_table(found))


@app.command("show")
def show_model(version: str, as_json: AsJson = False) -> None:
    """Show all of bundle VERSION: window, quality, cost, gates, how it was made.

    Example: srp4ctr model show v2
    """
    from srp4ctr.cli.tables.models import bundle_tables, described

    [found] = described(load(), version)
    _show(found, as_json, *bundle_tables(found))


@app.command("diff")
def diff_models(one: str, other: str, as_json: AsJson = False) -> None:
    """Show bundles ONE and OTHER side by side, and what differs.

    Example: srp4ctr model diff v1 v2
    """
    from srp4ctr.cli.tables.models import described, difference_table, differences

    pair = described(load(), one, other)
    _show(differences(*pair), as_json, difference_table(*pair))


@app.command("promote")
def promote_model(
    version: str,
    canary: Annotated[
        bool, typer.Option("--canary", help="As rank_clicks_canary, beside what serves.")
    ] = False,
) -> None:
    """Serve bundle VERSION; if anything fails, the old one keeps serving.

    Refused while the feature store is not what the log says: srp4ctr features check.
    As a canary it answers what callers send of a share of their users; promote it again,
    without --canary, and it serves all: srp4ctr model rollback --canary ends it.

    Example: srp4ctr model promote v2 --canary
    """
    from srp4ctr.cli.tables.models import gates_table
    from srp4ctr.ops.promotion_service import promote

    settings = load()
    gates = promote(settings, _folder(settings, version), canary=canary)
    if gates:
        out.print(gates_table(gates))
    out.print(f"{version} {'is the canary' if canary else 'serves'}")


@app.command("rollback")
def roll_back(
    canary: Annotated[bool, typer.Option("--canary", help="End the canary alone.")] = False,
) -> None:
    """Serve the previous bundle again.

    Example: srp4ctr model rollback
    """
    from srp4ctr.ops.promotion_service import what_serves
    from srp4ctr.triton_repo.replicas import end_canary, rollback

    settings = load()
    take_back = end_canary if canary else rollback
    command = "model rollback --canary" if canary else "model rollback"
    with audit_log(settings).recorded(command, state=lambda: what_serves(settings)):
        serving = take_back(settings.triton).serving
    out.print(f"{serving} serves")


@app.command("fill")
def fill_repository(repository: Path) -> None:
    """Render what the other servers serve into live repository REPOSITORY of one.

    Before that one starts, where it was added or has lost its disk. What it serves like the
    first of them (settings triton.repository, triton.replicas) stays as it is.

    Example: srp4ctr model fill /models/triton-2
    """
    from srp4ctr.triton_repo.filling import fill

    settings = load()
    bundles = Path(settings.training.bundles_dir)
    serving = fill(repository, settings.triton, settings.features, bundles).serving
    out.print(f"{repository}: {serving or 'nothing serves yet'}")


@app.command("rank")
def rank(user: str, items: list[str]) -> None:
    """Ask Triton for USER's click probability of each of ITEMS, best first.

    Example: srp4ctr model rank 42 50 181 258
    """
    from srp4ctr.cli.tables.results import ranking_table, titles
    from srp4ctr.streams.events import item_key
    from srp4ctr.streams.pseudonyms import read_pseudonyms
    from srp4ctr.triton_repo.client import RankClient

    settings = load()
    triton = settings.triton
    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    with RankClient(
        triton.grpc,
        canary_share=triton.canary_share,
        tls=triton.tls,
        pseudonyms=pseudonyms,
    ) as client:
        ranking = client.rank(user, items, deadline_s=5.0)
    names = titles(settings.features, [item_key(item) for item in items])
    out.print(ranking_table(ranking, names))


@app.command("vectors")
def write_vectors(version: str, out_file: Path) -> None:
    """Write what bundle VERSION gives a click model of your own to Parquet file OUT_FILE.

    A row an impression whose label has matured: query vectors and candidate states of what
    was known at that time (items' attributes: the newest). Only of requests that did not
    teach the bundle. docs/own_model.md tells how to use them.

    Example: srp4ctr model vectors v2 vectors.parquet
    """
    from srp4ctr.cli.tables.console import listener, progress_bars
    from srp4ctr.training import vectors

    settings = load()
    folder = _folder(settings, version)
    with progress_bars(out) as bars:
        rows = vectors.write_vectors(
            folder, settings.features, settings.streams, out_file, listener(bars)
        )
    out.print(f"{rows:,} impressions in {out_file}")


def _show(content: Any, as_json: bool, *tables: Table) -> None:
    if as_json:
        out.print_json(data=content)
        return
    for table in tables:
        out.print(table)


def _folder(settings: Settings, version: str) -> Path:
    folder = Path(settings.training.bundles_dir) / version
    if not folder.is_dir():
        raise ValueError(f"there is no bundle {version}: srp4ctr model list shows them")
    return folder
