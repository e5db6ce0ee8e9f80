"""A demand and what was measured → the machines that it needs, and what they cost.

Each line says which measured constant it was computed from. No I/O.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from srp4ctr.capacity import constants as measured
from srp4ctr.capacity.demand import Demand, Dials, Layout, Prices
from srp4ctr.capacity.limits import Limit, limits

DAY_S, HOURS_A_MONTH, GB = 86_400.0, 730.0, 1e9
CORES, MEMORY, DISK = "cores", "GB of memory", "GB of disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure."""

    part: str
    what: str
    value: float
    unit: str = ""
    """Lines in cores, GB of memory and GB of disk are added up and paid."""
    source: str = ""
    """The measured constant that it was computed from; "": a choice, or other lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it."""

    lines: tuple[Line, ...]
    limits: tuple[Limit, ...]
    """What breaks first stands first."""
    currency: str
    month: float
    """The price of all cores, memory and disk."""

    def total(self, unit: str) -> float:
        """Return the sum of the lines in ``unit``."""
        return sum(line.value for line in self.lines if line.unit == unit)


def plan(demand: Demand, prices: Prices, dials: Dials) -> Plan:
    """Return what ``demand`` needs with the settings of ``dials``."""
    layout = Layout(demand=demand, dials=dials)
    core_hours = training_core_hours(layout)
    lines = (
        *_streams(layout),
        *_store(layout),
        *_serving(layout),
        *_training(demand, core_hours),
        Line(part="monitoring", what="monitor, Prometheus, Grafana", value=4, unit=CORES),
    )
    found = limits(layout, core_hours / demand.cores)
    made = Plan(lines=lines, limits=found, currency=prices.currency, month=0.0)
    month = made.total(CORES) * prices.core_hour * HOURS_A_MONTH
    month += made.total(MEMORY) * prices.memory_gb_month
    month += made.total(DISK) * prices.disk_gb_month
    return replace(made, month=month)


def training_core_hours(layout: Layout) -> float:
    """Return the CPU hours of a warm refresh on ``train_days`` of new examples.

    Fine-tuning was measured at L = 50: at another length it takes as many times as long as
    pre-training does.
    """
    demand, refresh = layout.demand, layout.dials.refresh
    windows_ms = measured.PRETRAINING_MS_PER_WINDOW
    seconds = demand.train_days * DAY_S
    impressions = layout.impressions_per_s * seconds
    windows = demand.events_per_s * measured.BEHAVIORS_SHARE * seconds / demand.history
    longer = windows_ms.at(demand.history).value / windows_ms.at(50).value
    finetuning_ms = measured.FINETUNING_MS_PER_IMPRESSION.value * longer
    ms = (
        impressions * refresh.warm_finetune_epochs * finetuning_ms
        + windows * refresh.warm_pretrain_epochs * windows_ms.at(demand.history).value
    )
    return ms * (1.0 + refresh.replay) / 3.6e6


def _training(demand: Demand, core_hours: float) -> Iterator[Line]:
    one = partial(Line, part="training")
    yield one(
        what="a refresh, all cores of one machine",
        value=core_hours / demand.cores,
        unit="hours",
        source=measured.FINETUNING_MS_PER_IMPRESSION.source,
    )
    if demand.gpu_times:
        hours = core_hours / demand.gpu_times
        yield one(what="instead, a refresh on one GPU", value=hours, unit="hours")
    yield one(what="a machine", value=demand.cores, unit=CORES)


def _streams(layout: Layout) -> Iterator[Line]:
    demand, a_day = layout.demand, layout.demand.events_per_s * DAY_S
    kafka, log = measured.KAFKA_BYTES_PER_EVENT, measured.LOG_BYTES_PER_EVENT
    busy = demand.events_per_s * measured.KAFKA_US_PER_EVENT.value / 1e6 * demand.copies
    kept = a_day * kafka.value * demand.retention_days * demand.copies
    kept_for = f"Kafka, {demand.retention_days:g} days × {demand.copies}"
    one = partial(Line, part="streams")
    workers = measured.WORKER_US_PER_EVENT.source
    brokers = measured.KAFKA_US_PER_EVENT.source
    yield one(what="partitions of a topic", value=layout.partitions)
    yield one(what="stream workers", value=layout.workers, unit=CORES, source=workers)
    yield one(
        what="Kafka's brokers", value=layout.cores_for(busy), unit=CORES, source=brokers
    )
    yield one(
        what="Kafka a day, one copy",
        value=a_day * kafka.value / GB,
        unit="GB a day",
        source=kafka.source,
    )
    yield one(what=kept_for, value=kept / GB, unit=DISK)
    a_month = a_day * 30 * log.value / GB
    yield one(what="raw log, of a month", value=a_month, unit=DISK, source=log.source)


def _store(layout: Layout) -> Iterator[Line]:
    yield from _store_memory(layout)
    demand = layout.demand
    # A share a partition, and the profile.
    rows = (layout.partitions + 1) / (measured.PARTITIONS_OF_ITEM_READ + 1)
    tables, of_tables = layout.table_reads_per_s * rows, measured.STORE_US_PER_ITEM_READ
    for what, per_s, each_us in (
        ("writes of the stream", demand.events_per_s, measured.STORE_US_PER_EVENT),
        ("reads of users", demand.requests_per_s, measured.STORE_US_PER_USER_READ),
        ("reads of the item tables", tables, of_tables),
    ):
        yield Line(
            part="store",
            what=f"Redis: {what}",
            value=layout.cores_for(per_s * each_us.value / 1e6),
            unit=CORES,
            source=each_us.source,
        )


def _store_memory(layout: Layout) -> Iterator[Line]:
    demand = layout.demand
    users = measured.BYTES_PER_USER.at(demand.history)
    shares = demand.items * layout.partitions
    for what, number, each in (
        ("users", demand.users, users),
        ("items' counters, a share a partition", shares, measured.ITEM_SHARE_BYTES),
        ("items' attributes", demand.items, measured.ITEM_PROFILE_BYTES),
    ):
        yield Line(
            part="store",
            what=f"Redis: {what} × {demand.copies}",
            value=number * each.value * demand.copies / GB,
            unit=MEMORY,
            source=each.source,
        )


def _serving(layout: Layout) -> Iterator[Line]:
    demand, processes = layout.demand, layout.ranking_processes
    tiled = measured.TILED_S_PER_1000_CANDIDATES.at(demand.history)
    busy = demand.requests_per_s * demand.candidates / 1000 * tiled.value
    # The table before and after a turn; the embeddings of encoder and head.
    an_item = 2 * measured.TABLE_BYTES_PER_ITEM + 2 * measured.ITEM_BYTES_IN_A_FILE
    a_process = measured.SERVER_MB.value / 2 * 1e6 + demand.items * an_item
    one = partial(Line, part="serving")
    yield one(
        what="Triton, a history encoded once a request",
        value=processes,
        unit=CORES,
        source=measured.FOLDED.source,
    )
    replicas = math.ceil(processes / demand.cores)
    yield one(what=f"replicas of {demand.cores} cores", value=replicas)
    yield one(
        what="instead, with a history encoded a candidate",
        value=layout.cores_for(busy),
        unit="cores not needed",
        source=tiled.source,
    )
    yield one(
        what="Triton's processes, their item tables and embeddings",
        value=processes * a_process / GB,
        unit=MEMORY,
        source=measured.SERVER_MB.source,
    )
