"""``srp4ctr capacity``: what a traffic needs and costs, as two tables and a line."""

import json
from collections import defaultdict
from collections.abc import Mapping
from inspect import signature
from itertools import groupby
from typing import Any

import typer
from rich.table import Table

from srp4ctr.capacity.plan import CORES, DISK, MEMORY, CapacityOptions, CapacityPlan
from srp4ctr.cli.tables.console import out
from srp4ctr.cli.tables.results import a_table, figures, whole
from srp4ctr.settings import load

Document = Mapping[str, Any]
"""As ``CapacityPlan.document`` returns it."""


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
    for limit in plan["limits"]:
        remedy = f"\n→ {limit['remedy']}" if limit["times"] > 1.0 else ""
        numbers = (rounded(limit["needed"]), rounded(limit["holds"]))
        what, times = limit["what"] + remedy, rounded(limit["times"])
        table.add_row(what, *numbers, limit["unit"], times)
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
