"""``srp4ctr stack VERB``: start, stop and inspect the embedded stack."""

import os
from pathlib import Path
from typing import Annotated

import typer

from srp4ctr.cli.json_output import AsJson, one_object, stack_output
from srp4ctr.cli.tables.console import err, out
from srp4ctr.cli.tables.results import stack_table
from srp4ctr.embedded import stack, triton_install
from srp4ctr.errors import Srp4ctrError
from srp4ctr.setting_names import variable_of
from srp4ctr.settings import load
from srp4ctr.training.refresh import reports

app = typer.Typer(
    help="Start and stop the embedded stack: broker, feature store, Triton, Prometheus.",
    no_args_is_help=True,
)


@app.command("prepare")
def prepare() -> None:
    """Install the embedded Triton and its Python environment.

    Example:  srp4ctr stack prepare
    """
    triton_install.build(Path(load().embedded.serving_dir), _note)


@app.command("up")
def up(
    broker: Annotated[
        str | None,
        typer.Option(
            help="noida (embedded) or kafka (Apache Kafka, needs Java 17). "
            "Default: setting embedded.broker."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="single, or cluster (a Redis Cluster of three nodes). "
            "Default: setting embedded.store."
        ),
    ] = None,
) -> None:
    """Start broker, feature store, Triton and Prometheus in the background.

    Example:  srp4ctr stack up
    """
    if store:
        os.environ[variable_of(("embedded", "store"))] = store
    if broker:
        os.environ[variable_of(("embedded", "broker"))] = broker
    settings = load()
    addresses = stack.up(settings.embedded, http_port=settings.triton.http_port, note=_note)
    for section, values in addresses.settings().items():
        for name, value in values.items():
            _say(f"[bold]{section}.{name}[/bold] = {value}")
    _show_snippets(stack.status(settings.embedded))
    out.print(
        "Next: srp4ctr features apply, then srp4ctr stream run, srp4ctr monitor run and"
        " srp4ctr monitor open, each in a terminal of its own"
    )


@app.command("down")
def down() -> None:
    """Stop every process of the data folder; the data stays.

    Example:  srp4ctr stack down
    """
    settings = load()
    stopped = stack.down(settings.embedded)
    out.print(f"stopped: {', '.join(stopped) or 'nothing was running'}")
    if found := reports.running(Path(settings.training.bundles_dir)):
        err.print(
            f"A refresh still runs ({found}): it reads from and promotes to what is "
            "stopped now.",
            highlight=False,
            soft_wrap=True,
        )


@app.command("status")
def status(as_json: AsJson = False) -> None:
    """Show the running processes, their addresses and their logs.

    The exit status is 1 if a process has ended.

    Example:  srp4ctr stack status
    """
    status = stack.status(load().embedded)
    with one_object() as answer:
        if as_json:
            answer.print(stack_output(status))
        else:
            _print_status(status)
        if status.ended:
            raise Srp4ctrError(f"ended: {', '.join(status.ended)}. Try: srp4ctr stack up")


@app.command("init")
def init(
    kafka_users: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a file kafka_NAME per Kafka user, which holds the user's "
            "password. Default: create no users."
        ),
    ] = None,
    buckets: Annotated[
        bool,
        typer.Option(
            "--buckets",
            help="Create the buckets of features.log_uri and training.bundles_uri, with "
            "the rights of compose.yaml's users.",
        ),
    ] = False,
) -> None:
    """Prepare running servers: create topics and Kafka users, register feature views.

    It waits for a server that does not answer yet. Running it again is harmless.

    Example:  srp4ctr stack init --kafka-users secrets
    """
    from srp4ctr.ops.bootstrap import initialize_when_up

    initialize_when_up(load("kafka"), kafka_users, _say, buckets=buckets)


def _print_status(status: stack.StackStatus) -> None:
    if not status.running:
        out.print("nothing is running")
    else:
        out.print(stack_table(status))
        _say(f"logs: {Path(status.running[0].log).parent}/PROCESS.log")
    _show_snippets(status)


def _show_snippets(status: stack.StackStatus) -> None:
    for line in status.snippets():
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True)


def _note(text: str) -> None:
    err.print(text, style="dim", highlight=False)
