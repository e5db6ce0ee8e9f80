"""``srp4ctr capacity``: how many machines a traffic needs, and what breaks first."""

import json
from collections import defaultdict
from inspect import signature
from itertools import groupby
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from srp4ctr.capacity.plan import CORES, DISK, MEMORY, Options, Plan
from srp4ctr.settings import load


def capacity(**given: Any) -> None:
    """Say how many machines a traffic needs, what they cost, and what breaks first.

    From what was measured on one slow CPU: docs/capacity.md says what, and how to measure
    yours.

    Example: srp4ctr capacity --users 1000000 --items 50000 --events-per-s 2000
    --requests-per-s 500
    """
    options = Options(**given)
    plan = Plan(options, load()).document()
    if options.as_json:
        typer.echo(json.dumps(plan))
        return
    totals: dict[str, float] = defaultdict(float)
    needed = Table("", "what", "how much", "measured in", title="What it takes")
    for part, lines in groupby(plan["lines"], key=lambda line: line["part"]):
        for number, line in enumerate(lines):
            totals[line["unit"]] += line["value"]
            amount = f"{_number(line['value'])} {line['unit']}".rstrip()
            file = line["source"].partition(":")[0]
            needed.add_row("" if number else part, line["what"], amount, file)
    first = Table("what", "needed", "holds", "×", "what to do", title="What breaks first")
    for each in plan["limits"]:
        holds = f"{_number(each['holds'])} {each['unit']}"
        times, remedy = each["times"], each["remedy"] if each["times"] > 1.0 else "holds"
        first.add_row(each["what"], _number(each["needed"]), holds, _number(times), remedy)
    amounts = ", ".join(f"{_number(totals[each])} {each}" for each in (CORES, MEMORY, DISK))
    month = f"{_number(plan['month'])} {plan['currency']} a month"
    Console().print(needed, first, f"{amounts}: {month}", sep="\n", highlight=False)


capacity.__signature__ = signature(Options)  # type: ignore[attr-defined]  # for typer


def _number(value: float) -> str:
    """Return three digits of ``value`` that matter; whole numbers below a million whole."""
    for least, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= least:
            return f"{value / least:.3g}{letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
