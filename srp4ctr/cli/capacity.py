"""``srp4ctr capacity``: estimate machines, costs and limits."""

import json
from inspect import signature
from typing import Any

import typer
from rich.console import Console

from srp4ctr.capacity.plan import CapacityOptions, CapacityPlan
from srp4ctr.cli.tables.capacity import limits_table, needs_table, total
from srp4ctr.settings import load


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
    console = Console(highlight=False)
    console.print(needs_table(plan), limits_table(plan), total(plan), sep="\n")


capacity.__signature__ = signature(CapacityOptions)  # type: ignore[attr-defined]  # for typer
