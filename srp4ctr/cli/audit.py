"""``srp4ctr audit VERB``: who changed what, and when."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srp4ctr.cli.tables.dates import instant
from srp4ctr.cli.tables.results import a_table
from srp4ctr.ops.audit import BEGUN, DONE, Deed, audit_log, read_deeds
from srp4ctr.settings import load

app = typer.Typer(help="Who changed what, and when.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)
_COLUMNS = ("when (UTC)", "who", "command", "of", "from", "to", "result")


@app.command("list")
def list_deeds(
    since: Annotated[
        str, typer.Option(help="From then on: 2026-11-01 or …T12:00 (UTC).")
    ] = "1970-01-01",
    as_lines: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False,
) -> None:
    """List what was promoted, rolled back, forgotten, applied and rebuilt, and by whom.

    What was refused or failed is there too; "begun" is what was killed, or is going on.

    Example: srp4ctr audit list --since 2026-11-01
    """
    start = instant(since)
    path = audit_log(load()).path
    deeds, broken = read_deeds(path)
    found = [each for each in deeds if datetime.fromisoformat(each.at) >= start]
    if broken:
        err.print(f"{broken} lines of {path} cannot be read", markup=False)
    if as_lines:
        out.print_json(data=[asdict(each) for each in found])
        return
    if not found:
        out.print(f"nothing in {path} since {since}", markup=False)
        return
    out.print(_table(found))


def _table(deeds: list[Deed]) -> Table:
    table = a_table("audit log", *_COLUMNS)
    table.columns[0].no_wrap = True
    table.columns[0].min_width = len("2026-11-01 12:00:00")
    for deed in deeds:
        when = datetime.fromisoformat(deed.at).astimezone(UTC)
        result = deed.result if not deed.detail else f"{deed.result}: {deed.detail}"
        told = (deed.actor, deed.command, deed.subject, deed.before, deed.after, result)
        style = None if deed.result == DONE else "yellow" if deed.result == BEGUN else "red"
        table.add_row(f"{when:%Y-%m-%d %H:%M:%S}", *map(escape, told), style=style)
    return table
