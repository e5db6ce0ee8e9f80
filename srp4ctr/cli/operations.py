"""What operators inspect: the audit log, the settings in force, capacity, a deployment."""

import json
from collections import defaultdict
from collections.abc import Mapping
from inspect import signature
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from srp4ctr.capacity.plan import CORES, DISK, MEMORY, CapacityOptions, CapacityPlan
from srp4ctr.cli import json_output
from srp4ctr.cli.json_output import AsJson, one_object
from srp4ctr.cli.tables import results
from srp4ctr.cli.tables.console import err, out
from srp4ctr.cli.tables.results import a_table, figures, whole
from srp4ctr.errors import MistakeError
from srp4ctr.ops.audit import audit_log, read_entries
from srp4ctr.ops.doctor import run as doctor
from srp4ctr.ops.doctor.check_result import Finding
from srp4ctr.ops.project import new_project
from srp4ctr.settings import in_force, load

audit = typer.Typer(
    help="Show which operator changed what, and when.", no_args_is_help=True
)
settings = typer.Typer(
    help="Begin a project, and show the settings in force.", no_args_is_help=True
)
Document = Mapping[str, Any]
"""As ``CapacityPlan.document`` returns it."""


@audit.command("list")
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


@settings.command("init")
def init_project(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; made if missing.")],
    sample: Annotated[
        bool, typer.Option("--sample", help="Add generated events to begin with.")
    ] = False,
) -> None:
    """Write the files with which a project of your own begins.

    They are settings.toml, import.toml (which column is what) and README.md. A file that is
    there is never overwritten. With --sample come visits to a bookshop that does not exist.

    Example:  srp4ctr settings init shop --sample
    """
    made = new_project.begin(folder, Path(load().embedded.serving_dir), sample=sample)
    for path in made:
        out.print(str(path), markup=False, highlight=False, soft_wrap=True)
    steps = new_project.next_steps(folder, sample=sample)
    out.print(steps, markup=False, highlight=False, soft_wrap=True)


@settings.command("show")
def show_settings(
    section: Annotated[
        str,
        typer.Argument(
            help="Print only this section (triton) or setting (triton.grpc). Default: all.",
            show_default=False,
        ),
    ] = "",
    changed: Annotated[
        bool, typer.Option("--changed", help="Print only settings that are not defaults.")
    ] = False,
) -> None:
    """Print each setting, its value, and the file or variable that it comes from.

    A line is `name = value  # source`. Passwords are printed as `…`.

    Example:  srp4ctr settings show triton
    """
    found = list(in_force(section))
    if not found:
        raise MistakeError(
            f"there is no setting {section}: srp4ctr settings show lists all"
        )
    for each in found:
        if changed and each.source == "default":
            continue
        line = f"{each.name} = {each.value!r}  # {each.source}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def diagnose(
    grafana: Annotated[
        str,
        typer.Option(
            help="Address of Grafana, as https://HOST:3000. Default: not checked.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check the running deployment: what is open to others, and what does not work.

    The exit status is 1 if a check finds something. Run it on the host where the ports are
    published, and once more inside the containers: `make doctor`

    Example:  srp4ctr doctor --grafana https://127.0.0.1:3000
    """
    if as_json:
        with one_object() as answer:
            found = tuple(doctor.examine(load(), grafana))
            answer.print(json_output.doctor_output(found))
            doctor.refuse_bad(found)
        return

    def show(finding: Finding) -> None:
        out.print(results.finding_line(finding), highlight=False, soft_wrap=True)

    doctor.diagnose(load(), grafana, show)


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
        lines = [str(each) for each in json_output.write_schemas(out_dir)]
    elif command:
        lines = [json_output.schema_text(" ".join(command)).rstrip()]
    else:
        lines = sorted(json_output.OUTPUTS)
    typer.echo("\n".join(lines))


def capacity(**given: Any) -> None:
    """Estimate the machines and the monthly cost of a traffic, and what breaks first.

    The estimate multiplies measurements of one slow CPU: docs/capacity.md describes them,
    and how to measure yours.

    Example:  srp4ctr capacity --users 1000000 --items 50000 --events-per-s 2000
    --requests-per-s 500
    """
    options = CapacityOptions(**given)
    plan = CapacityPlan(options, load()).document()
    if options.as_json:
        typer.echo(json.dumps(plan))
        return
    shown = needs_table(plan), limits_table(plan), total(plan)
    out.print(*shown, sep="\n", highlight=False)


capacity.__signature__ = signature(CapacityOptions)  # type: ignore[attr-defined]  # for typer


def needs_table(plan: Document) -> Table:
    """Return what each part of the system needs, and the results it was computed from."""
    columns = (whole("part"), "what", figures("amount"), "unit", whole("measured in"))
    table = a_table("What it takes", *columns)
    for part, lines in groupby(plan["lines"], key=lambda line: line["part"]):
        for number, line in enumerate(lines):
            file, amount = line["source"].partition(":")[0], rounded(line["value"])
            table.add_row("" if number else part, line["what"], amount, line["unit"], file)
    return table


def limits_table(plan: Document) -> Table:
    """Return the parts that cannot be spread over machines, the worst first."""
    columns = ("what\nwhat to do", figures("needed"), figures("holds"), "unit")
    table = a_table("What breaks first", *columns, figures("×"))
    for each in plan["limits"]:
        remedy = f"\n→ {each['remedy']}" if each["times"] > 1.0 else ""
        numbers = (rounded(each["needed"]), rounded(each["holds"]))
        what, times = each["what"] + remedy, rounded(each["times"])
        table.add_row(what, *numbers, each["unit"], times)
    return table


def total(plan: Document) -> str:
    """Return all cores, memory, disk and their price as one line."""
    sums: dict[str, float] = defaultdict(float)
    for line in plan["lines"]:
        sums[line["unit"]] += line["value"]
    amounts = ", ".join(f"{rounded(sums[each])} {each}" for each in (CORES, MEMORY, DISK))
    return f"{amounts}: {rounded(plan['month'])} {plan['currency']} a month"


def rounded(value: float) -> str:
    """Return three digits of ``value`` that matter; whole numbers below a million whole."""
    for least, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= least:
            return f"{value / least:.3g}{letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
