"""``srp4ctr capacity``: how many machines a traffic needs, and what breaks first."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from srp4ctr.settings import load

if TYPE_CHECKING:  # numpy and its like, for this command alone
    from srp4ctr.capacity.plan import Plan

out = Console()

Users = Annotated[int, typer.Option(help="Whose rows the store keeps.")]
Items = Annotated[int, typer.Option(help="That may be shown.")]
EventsPerS = Annotated[float, typer.Option(help="Of all kinds, in the busiest hour.")]
RequestsPerS = Annotated[float, typer.Option(help="In the busiest hour.")]
Candidates = Annotated[int, typer.Option(help="Items a request.")]
History = Annotated[int, typer.Option(help="L: a user's last behaviours.")]
Partitions = Annotated[
    int, typer.Option(help="Of each topic; 0: twice the workers, so that they may double.")
]
Utilisation = Annotated[float, typer.Option(help="Share of each core that is planned for.")]
RetentionDays = Annotated[float, typer.Option(help="Kafka keeps events so long.")]
Copies = Annotated[int, typer.Option(help="Of Kafka's and Redis's data.")]
Cores = Annotated[int, typer.Option(help="Of a machine that serves or trains.")]
TrainDays = Annotated[
    float, typer.Option(help="A refresh learns from what so many days brought.")
]
GpuTimes = Annotated[
    float, typer.Option(help="A GPU trains so many times as fast as a core: measure yours.")
]
PriceCore = Annotated[
    float | None, typer.Option(help="Else monitoring.price_per_core_hour.")
]
PriceMemory = Annotated[float, typer.Option(help="Of a GB of Redis's or Triton's memory.")]
PriceDisk = Annotated[float, typer.Option(help="Of a GB on disk.")]


def capacity(  # noqa: PLR0913  # typer: a parameter a flag
    users: Users,
    items: Items,
    events_per_s: EventsPerS,
    requests_per_s: RequestsPerS,
    candidates: Candidates = 100,
    history: History = 50,
    partitions: Partitions = 0,
    utilisation: Utilisation = 0.6,
    retention_days: RetentionDays = 7.0,
    copies: Copies = 2,
    cores: Cores = 16,
    train_days: TrainDays = 1.0,
    gpu_times: GpuTimes = 0.0,
    price_core_hour: PriceCore = None,
    price_memory_gb_month: PriceMemory = 3.0,
    price_disk_gb_month: PriceDisk = 0.08,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say how many machines a traffic needs, what they cost, and what breaks first.

    From what was measured on one slow CPU: docs/capacity.md says what, and how to measure
    yours.

    Example: srp4ctr capacity --users 1000000 --items 50000 --events-per-s 2000
    --requests-per-s 500
    """
    given = dict(locals())  # the flags, by name
    made = _plan(given)
    if as_json:
        typer.echo(json.dumps(_as_dict(made)))
        return
    for table in tables(made):
        out.print(table)
    out.print(_sum(made), highlight=False)


def _plan(given: Mapping[str, Any]) -> "Plan":
    from srp4ctr.capacity.demand import Demand, Dials, Prices
    from srp4ctr.capacity.plan import plan

    settings = load()
    core_hour = given["price_core_hour"]
    prices = Prices(
        currency=settings.monitoring.currency,
        core_hour=(
            settings.monitoring.price_per_core_hour if core_hour is None else core_hour
        ),
        memory_gb_month=given["price_memory_gb_month"],
        disk_gb_month=given["price_disk_gb_month"],
    )
    demand = Demand(**{each.name: given[each.name] for each in fields(Demand)})
    dials = Dials(
        refresh=settings.training,
        streams=settings.streams,
        monitor_window_s=settings.monitoring.window_s,
        item_refresh_s=settings.features.item_refresh_s,
    )
    return plan(demand, prices, dials)


def tables(plan: "Plan") -> tuple[Table, Table]:
    """Return what is needed, and what breaks first."""
    needed = Table("", "what", "how much", "measured in", title="What it takes")
    before = ""
    for line in plan.lines:
        part, before = ("" if line.part == before else line.part), line.part
        amount = f"{_number(line.value)} {line.unit}".rstrip()
        needed.add_row(part, line.what, amount, line.source.partition(":")[0])
    first = Table("what", "needed", "holds", "×", "what to do", title="What breaks first")
    for limit in plan.limits:
        first.add_row(
            limit.what,
            _number(limit.needed),
            f"{_number(limit.holds)} {limit.unit}",
            _number(limit.times),
            limit.remedy if limit.times > 1.0 else "holds",
        )
    return needed, first


def _sum(plan: "Plan") -> str:
    from srp4ctr.capacity.plan import CORES, DISK, MEMORY

    amounts = ", ".join(
        f"{_number(plan.total(unit))} {unit}" for unit in (CORES, MEMORY, DISK)
    )
    return f"{amounts}: {_number(plan.month)} {plan.currency} a month"


def _as_dict(plan: "Plan") -> dict[str, object]:
    found = asdict(plan)
    for each, limit in zip(found["limits"], plan.limits, strict=True):
        each["times"] = limit.times
    return found


def _number(value: float) -> str:
    """Return three digits of ``value`` that matter; whole numbers below a million whole."""
    if value == round(value) and value < 1e6:
        return f"{value:,.0f}"
    for least, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= least:
            return f"{value / least:.3g}{letter}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
