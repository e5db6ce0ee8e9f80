"""``srp4ctr model VERB``: train, compare, promote and query models."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from srp4ctr.cli import json_output
from srp4ctr.cli.json_output import AsJson
from srp4ctr.cli.tables.console import err, out
from srp4ctr.settings import Settings, load

if TYPE_CHECKING:  # tritonclient: another extra
    from srp4ctr.client.messages import Ranking
    from srp4ctr.ops.promotion_service import PromotionPlan
    from srp4ctr.triton_repo.deployment.one_server import Promotion

app = typer.Typer(help="Train, compare, promote and query models.", no_args_is_help=True)

SERVING = ("kafka", "store", "triton")  # what a promotion reads and changes
REFUSED = 5  # exit status; errors have 1 to 4: srp4ctr/errors.py

At = Annotated[
    str | None,
    typer.Option(
        help="Time of the request in UTC, as 2026-11-01T12:00, for a log of the past. "
        "Default: now."
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Only items with this attribute, as genre=drama. Repeatable. "
        "Default: all items."
    ),
]
Version = Annotated[str, typer.Argument(help="Version of the bundle, as v2.")]
NewestVersion = Annotated[
    str | None,
    typer.Argument(help="Version, as v2. Default: the newest that passed its gates."),
]
CanaryShare = Annotated[
    float | None,
    typer.Option(help="A canary's share of the users. Default: triton.canary_share."),
]


@app.command("refresh")
def refresh_model(
    promote: Annotated[
        bool, typer.Option(help="Serve the new bundle if it passes all gates.")
    ] = True,
    every: Annotated[
        str | None,
        typer.Option(help="Repeat at this interval: 30m, 1h or 2d. Default: train once."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Ignore the last bundle's weights.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if there is no new data.")
    ] = False,
) -> None:
    """Train on the data since the last bundle; calibrate, export, evaluate and promote.

    If it is killed, the next refresh resumes from its checkpoint. The exit status is 5 if a
    gate refused the bundle. Learning curves: `tensorboard --logdir .data/bundles/logs`

    Several processes or GPUs can share each batch:
    `torchrun --nproc-per-node 2 -m srp4ctr.cli model refresh`

    Example:  srp4ctr model refresh --every 1h
    """
    from srp4ctr.cli.tables.console import progress_listener
    from srp4ctr.cli.tables.models import report_tables
    from srp4ctr.ops.refresh_job import Display, RefreshPlan, run

    plan = RefreshPlan(
        promote=promote, every=every or "", from_scratch=from_scratch, force=force
    )
    display = Display(
        progress=lambda hint: progress_listener(out, hint),
        show=lambda report: _print(*report_tables(report)),
        say=err.print,
    )
    report = run(_settings_of_refresh(promote), plan, display)
    if report is not None and report.outcome == "refused":
        raise typer.Exit(REFUSED)


def _settings_of_refresh(promote: bool) -> Settings:
    """Return the settings; its promotion's servers are missed before hours of training."""
    settings = load()
    is_promoted_here = promote and not settings.training.bundles_uri
    return load(*SERVING) if is_promoted_here else settings


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the bundles: data, quality, cost, gates, and which one serves.

    Example:  srp4ctr model list
    """
    from srp4ctr.cli.tables.models import bundles_table
    from srp4ctr.ops.bundles import describe_bundles

    settings = load()
    found = describe_bundles(settings)
    if found or as_json:
        _show(found, as_json, bundles_table(found))
    else:
        out.print(f"no bundles in {settings.training.bundles_dir}: srp4ctr model refresh")


@app.command("show")
def show_model(version: Version, as_json: AsJson = False) -> None:
    """Show one bundle: data, gates, quality, sizes, cost and training time.

    Example:  srp4ctr model show v2
    """
    from srp4ctr.cli.tables.models import bundle_tables
    from srp4ctr.ops.bundles import describe_bundles

    [found] = describe_bundles(load(), version)
    _show(found, as_json, *bundle_tables(found))


@app.command("diff")
def diff_models(one: Version, other: Version, as_json: AsJson = False) -> None:
    """Compare the figures of two bundles.

    Example:  srp4ctr model diff v1 v2
    """
    from srp4ctr.cli.tables.models import difference_table, differences
    from srp4ctr.ops.bundles import describe_bundles

    pair = describe_bundles(load(), one, other)
    _show(differences(*pair), as_json, difference_table(*pair))


@app.command("promote")
def promote_model(  # noqa: PLR0913  # a command's options, by name
    version: NewestVersion = None,
    canary: Annotated[
        bool,
        typer.Option("--canary", help="Serve it to a share of the users, as a canary."),
    ] = False,
    share: CanaryShare = None,
    every: Annotated[
        str | None, typer.Option(help="Repeat at this interval: 1m or 1h. Default: once.")
    ] = None,
    accept_worse: Annotated[
        bool,
        typer.Option(
            "--accept-worse", help="Serve it even if a one-line rule ranks better."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a bundle; if anything fails, the current one keeps serving.

    The promotion is refused while the feature store differs from the raw log (`srp4ctr
    features check`). A canary serves a share of the users, always the same ones; the same
    command with another --share changes it. Promote it without --canary to serve all
    users, or end it by `srp4ctr model rollback --canary`. Where training shares no disk
    with Triton, `--every 1m` promotes what refreshes publish. A bundle that ranked worse
    than a one-line rule (gate rule_of_thumb) needs --accept-worse; the audit log has it.

    Example:  srp4ctr model promote v2 --canary --share 0.1
    """
    from srp4ctr.ops.promotion_service import PromotionPlan

    plan = PromotionPlan(
        version=version or "",
        canary=canary,
        canary_share=share,
        every=every or "",
        accept_worse=accept_worse,
    )
    _run_promotion(plan, as_json)


def _run_promotion(plan: "PromotionPlan", as_json: bool) -> None:
    from srp4ctr.cli.tables.models import promotion_lines
    from srp4ctr.ops.promotion_service import run_promotion

    settings = load(*SERVING)
    if not as_json:
        display = partial(promotion_lines, canary=plan.canary)
        run_promotion(settings, plan, lambda found: _print(*display(found)), err.print)
        return
    with json_output.one_object() as answer:

        def show(found: "Promotion | None") -> None:
            answer.print(json_output.promotion_output(found))

        run_promotion(settings, plan, show, err.print, show_refused=show)


@app.command("publish")
def publish_bundles() -> None:
    """Copy the bundles of training.bundles_dir into the bucket of training.bundles_uri.

    Once, when bundles move from a folder into a bucket: each refresh publishes its own.
    What is there already stays.

    Example:  srp4ctr model publish
    """
    from srp4ctr.ops.bundles import publish_all

    published = publish_all(load())
    out.print(f"published: {', '.join(published) or 'nothing'}", soft_wrap=True)


@app.command("rollback")
def roll_back(
    canary: Annotated[
        bool, typer.Option("--canary", help="Only end the canary; the model stays.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve the previous bundle again.

    Example:  srp4ctr model rollback
    """
    from srp4ctr.ops import promotion_service

    serving = promotion_service.roll_back(load("triton"), canary=canary)
    if as_json:
        json_output.print_line(json_output.rollback_output(serving))
    else:
        out.print(f"{serving.serving} serves")


@app.command("reconcile")
def reconcile_servers(as_json: AsJson = False) -> None:
    """Let all servers serve one version again, after a crash or a change by hand.

    A rollback that was killed is finished; a promotion is undone, unless all servers serve
    its bundle already. Without an unfinished rollout the others follow the first server.
    The next promote or rollback does the first two automatically.

    Example:  srp4ctr model reconcile
    """
    from srp4ctr.cli.tables.models import reconciliation_lines
    from srp4ctr.ops import promotion_service

    found = promotion_service.reconcile(load("triton"))
    if as_json:
        json_output.print_line(json_output.reconcile_output(found))
    else:
        for line in reconciliation_lines(found):
            out.print(line, soft_wrap=True, markup=False, highlight=False)


@app.command("fill")
def fill_repository(
    repository: Annotated[
        Path, typer.Argument(help="Model repository of the new or emptied Triton server.")
    ],
) -> None:
    """Write the serving models into the model repository of one more Triton server.

    Run it before that server starts: after it was added, or has lost its disk. A server
    that already serves the same as the first one (settings triton.repository and
    triton.replicas) is left unchanged.

    Example:  srp4ctr model fill /models/triton-2
    """
    from srp4ctr.training.export import bundle_store
    from srp4ctr.triton_repo.deployment.new_server import fill

    settings = load()
    bundles = partial(bundle_store.bundle_folder, settings.training)
    serving = fill(repository, settings.triton, settings.features, bundles).serving
    out.print(f"{repository}: {serving or 'nothing serves yet'}", soft_wrap=True)


@app.command("rank")
def rank(
    user: Annotated[str, typer.Argument(help="Id of the user, as in the events.")],
    items: Annotated[
        list[str], typer.Argument(help="Ids of the items to rank, separated by spaces.")
    ],
    number: Annotated[
        list[str] | None,
        typer.Option(
            help="A number of each item that the bundle reads, in the order of the items: "
            "price=80,95,,60 (nothing: missing). Repeatable. Default: all are missing."
        ),
    ] = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Rank items for a user by click probability.

    Example:  srp4ctr model rank 42 50 181 258
    """
    from srp4ctr.ops.ranking import rank

    numbers, at_ms = dict(map(_number, number or [])), _at_ms(at)
    settings = load("triton", "store")
    ranking = rank(settings, user, items, at_ms, numbers)
    _print_ranking(settings, ranking, at_ms, as_json)


@app.command("recommend")
def recommend(  # noqa: PLR0913  # a command's options, by name
    user: Annotated[str, typer.Argument(help="Id of the user, as in the events.")],
    count: Annotated[int, typer.Option("-n", "--count", help="Number of items.")] = 20,
    where: Where = None,
    exclude: Annotated[
        str,
        typer.Option(
            help="Leave out what the user has clicked (and done otherwise), what was also "
            "shown, or nothing."
        ),
    ] = "clicked",
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Recommend items to a user, from all that are available.

    The candidates are what the pre-trained encoder expects next, what is popular now and
    what was added since the training; the click model ranks them.

    Example:  srp4ctr model recommend 42 -n 20 --where genre=drama
    """
    from srp4ctr.errors import MistakeError
    from srp4ctr.ops.ranking import recommend

    wanted: dict[str, list[str]] = {}
    for each in where or []:
        name, equals, value = each.partition("=")
        if not equals:
            raise MistakeError(f"--where {each!r} names no value: write {each}=VALUE")
        wanted.setdefault(name, []).append(value)
    at_ms = _at_ms(at)
    settings = load("triton", "store")
    options = {"where": wanted, "exclude": exclude, "request_time_ms": at_ms}
    ranking = recommend(settings, user, count, **options)
    _print_ranking(settings, ranking, at_ms, as_json)


@app.command("vectors")
def write_vectors(
    version: Version,
    out_file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
) -> None:
    """Write a bundle's embeddings as features for a click model of your own.

    One row per impression with a matured label: query vectors and candidate states. They
    are point-in-time correct, but use the newest attributes of items. Requests that the
    bundle was trained on are left out. docs/own_model.md shows how to use the file.

    Example:  srp4ctr model vectors v2 vectors.parquet
    """
    from srp4ctr.cli.tables.console import progress_listener
    from srp4ctr.ops.bundles import bundle_folder
    from srp4ctr.training.export import user_embeddings
    from srp4ctr.training.loop.distributed import cpu_threads

    settings = load()
    folder = bundle_folder(settings, version)
    with progress_listener(out) as progress, cpu_threads(settings.training.threads):
        rows = user_embeddings.write_vectors(
            folder, settings.features, settings.streams, out_file, progress
        )
    out.print(f"{rows:,} impressions in {out_file}", soft_wrap=True)


def _number(text: str) -> tuple[str, list[float | None]]:
    """Return the name and values of one option ``--number``, None where one is missing."""
    from srp4ctr.errors import MistakeError

    name, equals, values = text.partition("=")
    try:
        found = [float(each) if each.strip() else None for each in values.split(",")]
    except ValueError:
        equals = ""
    if not equals:
        raise MistakeError(f"--number {text!r}: write NAME=80,95,,60, one of each item")
    return name, found


def _at_ms(text: str | None) -> int | None:
    """Return the option ``--at`` in UTC milliseconds; None without it."""
    from srp4ctr.cli.tables.results import instant

    return None if text is None else round(instant(text, "--at").timestamp() * 1000)


def _print_ranking(
    settings: Settings, ranking: "Ranking", at_ms: int | None, as_json: bool
) -> None:
    """Print a ranking, which Triton made it, and what is to be known of its inputs."""
    from srp4ctr.cli.tables.results import ranking_table
    from srp4ctr.ops.ranking import context_of

    context, triton = context_of(settings, ranking, at_ms), settings.triton.grpc
    if as_json:
        json_output.print_line(
            json_output.ranking_output(ranking, context.titles, triton, context.notes)
        )
        return
    out.print(ranking_table(ranking, context.titles))
    for note in (f"Triton: {triton}", *context.notes):
        out.print(note, markup=False, highlight=False, soft_wrap=True)


def _show(content: Any, as_json: bool, *tables: Table) -> None:
    if as_json:
        out.print_json(data=content)
    else:
        _print(*tables)


def _print(*tables: Table | str) -> None:
    for table in tables:
        out.print(table)
