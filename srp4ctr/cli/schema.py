"""``srp4ctr schema``: the JSON Schema of what a command prints with --json."""

from pathlib import Path
from typing import Annotated

import typer

from srp4ctr.cli import json_output
from srp4ctr.errors import MistakeError


def schema(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="Command, as model promote. Default: list the commands.",
            show_default=False,
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(help="Write one file per command here. Default: print."),
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json.

    The schema (draft 2020-12) has the object of an error, too. docs/scripts.md shows how
    scripts use both.

    Example:  srp4ctr schema model promote
    """
    if out_dir:
        if command:
            raise MistakeError("--out-dir writes all schemas: leave the command out")
        lines = [str(schema) for schema in json_output.write_schemas(out_dir)]
    elif command:
        lines = [json_output.schema_text(" ".join(command)).rstrip()]
    else:
        lines = sorted(json_output.OUTPUTS)
    typer.echo("\n".join(lines))
