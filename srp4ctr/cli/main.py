"""The command line: ``srp4ctr NOUN VERB`` loads the settings and calls one function.

Imports of torch, Feast and Faust stay inside the commands that need them: each costs
seconds. prometheus_client comes first, always: Feast would switch it to files.
"""

import importlib.metadata
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

with suppress(ImportError):  # a publisher has none; before Feast: see above
    import prometheus_client  # noqa: F401

from srp4ctr.cli import audit as audit_commands
from srp4ctr.cli import capacity as capacity_commands
from srp4ctr.cli import events as event_commands
from srp4ctr.cli import features as feature_commands
from srp4ctr.cli import model as model_commands
from srp4ctr.cli import report as report_commands
from srp4ctr.cli import settings as settings_commands
from srp4ctr.cli import stack as stack_commands
from srp4ctr.cli import stream as stream_commands
from srp4ctr.ops.doctor import doctor
from srp4ctr.settings import PREFIX, STACK_FILE, load

app = typer.Typer(
    name="srp4ctr",
    help="Streams, features, training and serving of SRP4CTR for click-through rates.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
monitor = typer.Typer(help="Live quality and cost.", no_args_is_help=True)
for noun, group in {
    "stack": stack_commands.app,
    "events": event_commands.app,
    "stream": stream_commands.app,
    "features": feature_commands.app,
    "model": model_commands.app,
    "monitor": monitor,
    "audit": audit_commands.app,
    "settings": settings_commands.app,
}.items():
    app.add_typer(group, name=noun)

out = Console()
err = Console(stderr=True)


# They start the stack, or need none.
NEED_NO_STACK = ("stack", "demo", "capacity")


def _version(is_asked: bool) -> None:
    if is_asked:
        print(f"srp4ctr {importlib.metadata.version('srp4ctr')}")
        raise typer.Exit


@app.callback()
def everything(
    context: typer.Context,
    data_dir: Annotated[
        str | None,
        typer.Option(help="The embedded stack's folder (setting local.data_dir)."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say which."),
    ] = False,
) -> None:
    """Streams, features, training and serving of SRP4CTR for click-through rates."""
    if data_dir:  # the environment is the last word, and reaches child processes
        os.environ[f"{PREFIX}LOCAL__DATA_DIR"] = data_dir
        is_up = (Path(data_dir) / STACK_FILE).is_file()
        if not is_up and context.invoked_subcommand not in NEED_NO_STACK:
            raise ValueError(
                f"nothing runs in {data_dir}: srp4ctr --data-dir {data_dir} stack up"
            )


@monitor.command("run")
def monitor_run() -> None:
    """Serve live quality and cost to Prometheus until stopped (Ctrl-C).

    Example: srp4ctr monitor run
    """
    import signal
    import threading

    from srp4ctr.features.check_report import REPORT_FILE
    from srp4ctr.monitoring.exporter import MonitorSources
    from srp4ctr.monitoring.service import run_monitor
    from srp4ctr.ops.probe_wiring import probing
    from srp4ctr.ops.waiting import ended_by_sigterm, until_there
    from srp4ctr.streams.topics import ensure_topics

    settings = load()
    with ended_by_sigterm():  # a reader must not be what creates a topic
        until_there(lambda: ensure_topics(settings.kafka), err.print)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sources = MonitorSources(
        kafka=settings.kafka,
        triton_metrics_url=settings.triton.metrics_url,
        repository=Path(settings.triton.repository),
        bundles_dir=Path(settings.training.bundles_dir),
        label_window_s=settings.streams.label_window_s,
        worker_group=settings.streams.group_id,
        feature_check=Path(settings.features.log_dir) / REPORT_FILE,
    )
    address = f"http://{settings.monitoring.host}:{settings.monitoring.port}/metrics"
    err.print(f"metrics: {address}  (Ctrl-C stops)")
    run_monitor(sources, settings.monitoring, stop, probing(settings))


@monitor.command("open")
def monitor_open(
    port: Annotated[
        int | None,
        typer.Option(help="Of 127.0.0.1 (monitoring.page_port); 0: any free one."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in your browser.")] = True,
) -> None:
    """Serve the dashboards and the playground on this machine until Ctrl-C.

    Example: srp4ctr monitor open --no-browser
    """
    from srp4ctr.playground.page import PACKAGES, missing_packages, open_page

    if missing_packages():
        raise ValueError(
            f"the page needs {', '.join(PACKAGES)}: pip install 'srp4ctr[page]'"
        )
    settings = load()
    chosen = settings.monitoring.page_port if port is None else port

    def say(address: str) -> None:
        print(f"page: {address}  (Ctrl-C stops)", flush=True)

    open_page(settings, chosen, browser, say)


monitor_report = monitor.command("report")(report_commands.report)
capacity = app.command("capacity")(capacity_commands.capacity)
doctor_command = app.command("doctor")(doctor.doctor)


@app.command()
def demo(
    events_file: Annotated[
        Path | None,
        typer.Option("--events", help="Your own events, JSON lines or Parquet."),
    ] = None,
    broker: Annotated[
        str, typer.Option(help="noida (embedded) or kafka (Apache Kafka, Java 17).")
    ] = "noida",
    store: Annotated[
        str, typer.Option(help="single, or cluster (a Redis Cluster of three nodes).")
    ] = "single",
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running to play with.")
    ] = False,
) -> None:
    """Run the whole loop on real data: publish, fold, train, serve, replay, measure.

    Example: srp4ctr demo --events mine.jsonl --keep
    """
    from srp4ctr.demo.run import Options, run

    run(Options(events=events_file, broker=broker, store=store, keep=keep), out)


def main() -> None:
    """Run the command line; what a person can mend ends in one line, not a traceback."""
    from srp4ctr.cli.missing_extras import sentence
    from srp4ctr.cli.tables.console import show_failure

    try:
        app()
    except ModuleNotFoundError as error:
        if not (missing := sentence(error.name, sys.argv[1:])):
            raise
        show_failure(err, ValueError(missing))
        sys.exit(1)
    except (ValueError, RuntimeError, OSError) as error:
        show_failure(err, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
