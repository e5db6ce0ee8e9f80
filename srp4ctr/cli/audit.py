"""``srp4ctr audit VERB``: which operator changed what, and when."""

from typing import Annotated

import typer

from srp4ctr.cli import json_output
from srp4ctr.cli.json_output import AsJson
from srp4ctr.cli.tables import results
from srp4ctr.cli.tables.console import err, out
from srp4ctr.ops.audit import audit_log, read_entries
from srp4ctr.settings import load

app = typer.Typer(help="Show which operator changed what, and when.", no_args_is_help=True)


@app.command("list")
def list_entries(
    since: Annotated[
        str,
        typer.Option(help="List only from this time on: 2026-11-01 or …T12:00 (UTC)."),
    ] = "1970-01-01",
    as_json: AsJson = False,
) -> None:
    """List promotions, rollbacks, erasure requests, registrations and rebuilds.

    Refused and failed commands are listed too. The result "begun" marks an unfinished
    operation: it still runs, or it was killed.

    Example:  srp4ctr audit list --since 2026-11-01
    """
    path = audit_log(load()).path
    found, unreadable = read_entries(path, results.instant(since))
    if unreadable:
        err.print(f"{unreadable} lines of {path} cannot be read", markup=False)
    if as_json:
        json_output.print_line(tuple(found))
    elif found:
        out.print(results.audit_table(found))
    else:
        out.print(f"nothing in {path} since {since}", markup=False)
