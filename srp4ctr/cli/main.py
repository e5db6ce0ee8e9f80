"""The command line: ``srp4ctr NOUN VERB`` loads the settings and calls one function.

Imports of torch, Feast and Faust stay inside the commands that need them: each costs
seconds. prometheus_client comes first, always: Feast would switch it to files.
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated

import prometheus_client  # noqa: F401  # before Feast: see above
import typer

from srp4ctr import logs, tracing
from srp4ctr.cli import (
    audit,
    capacity,
    demo,
    doctor,
    events,
    features,
    json_output,
    model,
    monitor,
    schema,
    settings,
    stack,
    stream,
)
from srp4ctr.cli.failures import INTERRUPTED, report, report_interruption
from srp4ctr.cli.tables.console import err
from srp4ctr.processes import is_interrupted, noticing_interrupts
from srp4ctr.settings import SettingsError, load, use_data_dir

app = typer.Typer(
    name="srp4ctr",
    help="Streams, features, training and serving of SRP4CTR for click-through rates.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for noun, group in {
    "stack": stack.app,
    "events": events.app,
    "stream": stream.app,
    "features": features.app,
    "model": model.app,
    "monitor": monitor.app,
    "audit": audit.app,
    "settings": settings.app,
}.items():
    app.add_typer(group, name=noun)
WITHOUT_NOUN: Mapping[str, Callable[..., None]] = {
    "capacity": capacity.capacity,
    "doctor": doctor.diagnose,
    "schema": schema.schema,
    "demo": demo.demo,
}
for name, command in WITHOUT_NOUN.items():
    app.command(name)(command)

# They start the stack, or need none.
NEED_NO_STACK = ("stack", "demo", "capacity", "schema")


def _version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"srp4ctr {importlib.metadata.version('srp4ctr')}")
        raise typer.Exit


@app.callback()
def everything(
    context: typer.Context,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Folder of the embedded stack. Default: embedded.data_dir."),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(help="Log lines as text or json. Default: logging.format."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the trace of any error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Streams, features, training and serving of SRP4CTR for click-through rates.

    Example:  srp4ctr --data-dir .data stack up
    """
    if data_dir:
        needs_stack = context.invoked_subcommand not in NEED_NO_STACK
        use_data_dir(data_dir, needs_stack=needs_stack)
    if log_format:  # above any file, and for the processes that this one starts, too
        os.environ[logs.FORMAT_VARIABLE] = log_format
    process = context.invoked_subcommand or "srp4ctr"
    with suppress(SettingsError):  # the command itself reports it, where it reads settings
        loaded = load()
        logs.configure(process, loaded.logging)
        tracing.start(process, loaded.tracing)


def main() -> None:
    """Run the command line; an error that is no bug ends in a sentence and its status."""
    from srp4ctr.features.online import feast_import

    feast_import.lightly()
    typed = sys.argv[1:]
    as_json = json_output.is_requested(typed)
    with noticing_interrupts():
        try:
            app()
        except SystemExit as ended:
            if is_interrupted() and ended.code == INTERRUPTED:
                sys.exit(_interrupted(typed, as_json))
            if as_json:
                json_output.print_usage_error(ended, typed)
            raise
        except Exception as error:
            debug = "--debug" in typed
            if is_interrupted() and not debug:
                sys.exit(_interrupted(typed, as_json))
            if as_json:
                json_output.print_error(error, typed)
            sys.exit(report(err, error, typed, debug=debug))


def _interrupted(typed: Sequence[str], as_json: bool) -> int:
    if as_json:
        json_output.print_interruption(typed)
    return report_interruption(err, typed)


if __name__ == "__main__":
    main()
