"""Traffic and measured costs → the machines that it needs, and what breaks first.

Each constant names its file under ``benchmarks/results``, and a test compares the two; or
the benchmark and the commit that had it. They were measured on one slow CPU:
``docs/capacity.md`` says how to measure yours.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from typer import Option

from srp4ctr.errors import MistakeError
from srp4ctr.settings import Settings

CORES, MEMORY, DISK = "cores", "GB of memory", "GB of disk"
DAY_S = 86_400.0
MACHINE_BYTES = 64e9  # memory of a machine, for a part that is one process
MACHINE_DISK_BYTES = 1e12
LINE = ("part", "what", "value", "unit", "source")
LIMIT = ("what", "needed", "holds", "unit", "remedy", "source", "times")


class MeasuredCost(NamedTuple):
    """A constant, or one per length L of histories, and its result file and field."""

    source: str
    value: float | Mapping[int, float]

    def at(self, length: float = 0.0) -> float:
        """Return the cost at L, interpolated; below the least measured L it is constant."""
        if not isinstance(self.value, Mapping):
            return self.value
        lines = [*pairwise(self.value.items())]
        inside = [line for line in lines if length <= line[1][0]]
        (low, first), (high, last) = inside[0] if inside else lines[-1]
        return first + (last - first) * (max(length, low) - low) / (high - low)


Line = tuple[str, str, float, str, MeasuredCost | None]

WORKER_US = MeasuredCost("footprints.json: worker_us_per_event", {50: 52.5, 200: 57.67})
USER_BYTES = MeasuredCost("footprints.json: bytes_per_user", {50: 1751, 200: 3702})
WINDOW_MS = MeasuredCost(
    "footprints.json: pretraining_ms_per_window", {50: 1.192, 200: 5.583}
)
# These do not grow with L, or by less than the noise: means of both lengths.
SHARE_BYTES = MeasuredCost("footprints.json: bytes_per_item_share", 547.0)
PROFILE_BYTES = MeasuredCost("footprints.json: bytes_per_item_profile", 553.0)
KAFKA_BYTES = MeasuredCost("footprints.json: kafka_bytes_per_event", 405.0)
LOG_BYTES = MeasuredCost("footprints.json: log_bytes_per_event", 44.0)
STORE_US = MeasuredCost("footprints.json: store_us_per_event", 7.835)
KAFKA_US = MeasuredCost("footprints.json: kafka_us_per_event", 41.67)
USER_READ_US = MeasuredCost("footprints.json: store_us_per_user_read", 30.0)
ITEM_READ_US = MeasuredCost("footprints.json: store_us_per_item_read", 13.0)
ROWS_PER_ITEM_READ = 5  # counters of each of four partitions, and a profile
RANK_S = "serving.json: cpu_s_per_1000_candidates of rank"
ENCODE_ONCE_S = {  # by L, then by the candidates of a request
    50: {10: 0.11397, 100: 0.02345, 500: 0.01266},
    200: {10: 0.20366, 100: 0.02982, 500: 0.01527},
    1000: {10: 0.36848, 100: 0.04018, 500: 0.01426},
}
RE_ENCODE_S = MeasuredCost(f"{RANK_S}_tiled, 100 candidates", {50: 0.33391, 200: 1.31563})
SERVER_MB = MeasuredCost("serving.json: rss_mb, two processes that rank", 312.8)
FIT_MS = MeasuredCost(
    "folded_training.json: folded_s of ebnerd, an impression, L = 50", 0.1435
)
LABEL_US = MeasuredCost("monitoring.json: overhead_us_per_event", 17.25)
LABEL_BYTES = MeasuredCost("monitoring.json: memory_mb of a million labels", 480.0)
WAITING_BYTES = MeasuredCost("settings.toml: streams.max_kept_impressions", 600.0)
SPILLED_BYTES = MeasuredCost("training_memory.json: spilled_bytes_an_event", 436.0)
# A host's refresher of the table of items: a changed row, and a row when it starts.
REFRESH_US = MeasuredCost("item_table at 562b8326: busy_refresher_us_per_row", 10.2)
FILL_US = MeasuredCost("item_table at 562b8326: filled_cpu_us_per_row", 18.0)
SWEPT_ROWS = MeasuredCost("features/online/item_refresher.py: KEYS_IN_READ", 500.0)
TURNS = 4  # in features.item_refresh_s
SWEEP_EVERY_S = 3600.0
ITEM_BYTES = MeasuredCost("training/config.py: D = 64", 256.0)
# An item in both graphs of one bundle in one of the native step and the Python processes
# (two were measured). A server has the bundle that it serves, the one before, for a
# rollback, and the one that is promoted.
GRAPHS_BYTES = MeasuredCost(
    "serving_memory.json: promotion_bytes_an_item, of three bundles in three", 482.8
)
LOADED_BUNDLES = 3
ONNX_BYTES = 2**31  # of encoder.onnx or head.onnx, with all items: protobuf reads no more
# Of an item: in the table that a host's processes map, its text of 100 bytes included; in
# each process, with eight attributes; and of each share in the refresher.
TABLE_BYTES, ATTRIBUTE_BYTES, REFRESHED_BYTES = 340, 40, 132
# Shares of the events, a news site's (srp4ctr/testing/ingest_events.py); clicks are
# behaviours.
IMPRESSIONS, BEHAVIORS = 0.6, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityOptions:
    """The traffic of the busiest hour, the layout of the system, and prices."""

    users: Annotated[int, Option(help="Number of users.")]
    items: Annotated[int, Option(help="Number of items that may be shown.")]
    events_per_s: Annotated[float, Option(help="Events per second, busiest hour.")]
    requests_per_s: Annotated[float, Option(help="Requests per second, busiest hour.")]
    candidates: Annotated[int, Option(help="Items per request.")] = 100
    history: Annotated[int, Option(help="Behaviours kept per user.")] = 50
    partitions: Annotated[
        int, Option(help="Partitions per topic; 0 means twice the workers.")
    ] = 0
    utilisation: Annotated[float, Option(help="Planned share of each core.")] = 0.6
    retention_days: Annotated[float, Option(help="Days that Kafka keeps events.")] = 7.0
    copies: Annotated[int, Option(help="Copies of the data of Kafka and Redis.")] = 2
    cores: Annotated[int, Option(help="Cores of a machine that serves or trains.")] = 16
    train_days: Annotated[float, Option(help="Days of new events per refresh.")] = 1.0
    gpu_times: Annotated[
        float, Option(help="Speed of your GPU in cores; 0 means no GPU.")
    ] = 0.0
    price_core_hour: Annotated[
        float | None,
        Option(help="Price of a core per hour. Default: monitoring.price_per_core_hour."),
    ] = None
    price_memory_gb_month: Annotated[
        float, Option(help="Price of a GB of memory per month.")
    ] = 3.0
    price_disk_gb_month: Annotated[
        float, Option(help="Price of a GB of disk per month.")
    ] = 0.08
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name != "as_json"):
            value, flag = getattr(self, name), name.replace("_", "-")
            may_be_0 = flag.startswith(("partitions", "gpu", "price"))
            if not (value is None or 0 < value < math.inf or (may_be_0 and value == 0)):
                least = "at least" if may_be_0 else "above"
                raise MistakeError(f"--{flag} is {value:g}; it must be {least} 0")
        if self.utilisation > 1.0:
            raise MistakeError(
                f"--utilisation is {self.utilisation:g}; it must be at most 1"
            )


class CapacityPlan:
    """What a traffic needs with the settings: amounts times measured costs."""

    def __init__(self, options: CapacityOptions, settings: Settings) -> None:
        self.options, self.settings, d = options, settings, options
        self.labels_per_s = d.events_per_s * IMPRESSIONS
        self.workers = self.value(d.events_per_s, CORES, WORKER_US)
        self.partitions = d.partitions or max(4, 2 * self.workers)
        us = {
            L: {n: s * n * 1e3 for n, s in row.items()} for L, row in ENCODE_ONCE_S.items()
        }
        by_length = {L: MeasuredCost("", row).at(d.candidates) for L, row in us.items()}
        self.request_us = MeasuredCost(f"{RANK_S}_clicks, four callers", by_length)
        self.rankers = self.value(d.requests_per_s, CORES, self.request_us)
        # At most: each worker writes an item's row of a partition once per flush.
        flushes_per_s = 1000.0 / settings.streams.flush_interval_ms
        most_per_s = d.items * self.partitions * flushes_per_s
        self.changes_per_s = min(d.events_per_s, most_per_s)
        # Fine-tuning was measured at L = 50: it grows with L as pre-training does.
        training, window_ms = settings.training, WINDOW_MS.at(d.history)
        fit_ms = FIT_MS.at() * (window_ms / WINDOW_MS.at(50))
        ms = self.labels_per_s * fit_ms
        windows = d.events_per_s * BEHAVIORS / d.history
        ms += windows * training.warm_pretrain_epochs * window_ms
        self.cut_events = d.events_per_s * d.train_days * DAY_S
        self.core_hours = ms * (1.0 + training.replay) * d.train_days * DAY_S / 3.6e6

    def value(self, amount: float, unit: str, of: MeasuredCost | None) -> float:
        """Return ``amount`` times the cost of one, in whole cores or in GB."""
        each = of.at(self.options.history) if of else 1.0
        if of and unit.startswith(CORES):  # microseconds a second
            return math.ceil(round(amount * each / 1e6 / self.options.utilisation, 6))
        return amount * each / 1e9 if of and unit.startswith("GB") else amount

    def document(self) -> dict[str, Any]:
        """Return the lines, the limits (the worst first) and the price per month."""
        d, monitoring = self.options, self.settings.monitoring
        lines = [
            (part, what, self.value(amount, unit, of), unit, of.source if of else "")
            for part, what, amount, unit, of in self._lines()
        ]
        limits = [(*row[:5], row[5].source, row[1] / row[2]) for row in self._limits()]
        limits.sort(key=lambda limit: -limit[-1])
        core_hour, default = d.price_core_hour, monitoring.price_per_core_hour
        prices = {MEMORY: d.price_memory_gb_month, DISK: d.price_disk_gb_month}
        prices[CORES] = 730 * (default if core_hour is None else core_hour)
        return {
            "lines": [dict(zip(LINE, row, strict=True)) for row in lines],
            "limits": [dict(zip(LIMIT, row, strict=True)) for row in limits],
            "currency": monitoring.currency,
            "month": sum(value * prices.get(unit, 0.0) for _, _, value, unit, _ in lines),
        }

    # fmt: off
    def _lines(self) -> Iterator[Line]:
        yield from self._streams()
        yield from self._serving()
        d = self.options
        yield ("training", "a refresh on all cores of one machine",
               self.core_hours / d.cores, "hours", FIT_MS)
        if d.gpu_times:
            yield ("training", "instead, on one GPU",
                   self.core_hours / d.gpu_times, "hours", None)
        yield "training", "one machine", d.cores, CORES, None
        yield ("training", "what it spills while it cuts examples",
               self.cut_events, DISK, SPILLED_BYTES)
        yield "monitoring", "monitor, Prometheus, Grafana", 4, CORES, None

    def _streams(self) -> Iterator[Line]:
        d, events = self.options, self.options.events_per_s
        a_day, days, n, x = events * DAY_S, d.retention_days, d.copies, f"× {d.copies}"
        yield "streams", "partitions of a topic", self.partitions, "", None
        yield "streams", "stream workers", events, CORES, WORKER_US
        yield "streams", "Kafka's brokers", events * n, CORES, KAFKA_US
        yield "streams", "Kafka per day, one copy", a_day, "GB per day", KAFKA_BYTES
        yield "streams", f"Kafka, {days:g} days {x}", a_day * days * n, DISK, KAFKA_BYTES
        yield "streams", "raw log per month", a_day * 30, DISK, LOG_BYTES
        yield "store", f"Redis: users {x}", d.users * n, MEMORY, USER_BYTES
        yield ("store", f"Redis: items' counters, a row per partition {x}",
               d.items * self.partitions * n, MEMORY, SHARE_BYTES)
        yield "store", f"Redis: items' attributes {x}", d.items * n, MEMORY, PROFILE_BYTES
        yield "store", "Redis: writes of the stream", events, CORES, STORE_US

    def _serving(self) -> Iterator[Line]:
        d, requests = self.options, self.options.requests_per_s
        hosts = math.ceil(self.rankers / d.cores)
        item_rows = d.items * (self.partitions + 1)
        refresh_s = self.settings.features.item_refresh_s
        swept = min(item_rows / SWEEP_EVERY_S, SWEPT_ROWS.at() * TURNS / refresh_s)
        item_reads = hosts * swept / ROWS_PER_ITEM_READ
        a_host = d.items * (TABLE_BYTES + self.partitions * REFRESHED_BYTES)
        table = MeasuredCost(REFRESH_US.source, a_host)
        a_process = SERVER_MB.at() / 2 * 1e6 + d.items * ATTRIBUTE_BYTES
        ranker = SERVER_MB._replace(value=a_process)
        graphs = (self.rankers + hosts) * LOADED_BUNDLES * d.items
        yield "store", "Redis: reads of users", requests, CORES, USER_READ_US
        yield "store", "Redis: sweeps of the items", item_reads, CORES, ITEM_READ_US
        yield ("serving", "Triton: history encoded once per request",
               requests, CORES, self.request_us)
        yield "serving", f"replicas of {d.cores} cores", hosts, "", None
        yield ("serving", "a table of items and its refresher per replica",
               hosts, MEMORY, table)
        yield ("serving", "refreshing the tables of items",
               hosts * self.changes_per_s, CORES, REFRESH_US)
        yield ("serving", "instead, re-encoded per candidate",
               requests * d.candidates * 1e3, "cores not needed", RE_ENCODE_S)
        yield ("serving", "Triton: its processes, with items' attributes",
               self.rankers, MEMORY, ranker)
        yield ("serving", "Triton: items in the graphs of three bundles",
               graphs, MEMORY, GRAPHS_BYTES)

    def _limits(self) -> Iterator[tuple[str, float, float, str, str, MeasuredCost]]:
        d, streams, labels = self.options, self.settings.streams, self.labels_per_s
        item_rows = d.items * (self.partitions + 1)
        window_s = self.settings.monitoring.window_s
        of_partition, of_worker = labels / self.partitions, labels / self.workers
        yield ("labels that one monitor counts", labels,
               1e6 / LABEL_US.at(), "per second",
               "let several share the partitions (monitoring.share_by)", LABEL_US)
        yield ("labels in the monitor's window", labels * window_s,
               MACHINE_BYTES / LABEL_BYTES.at(), "labels in 64 GB",
               "a shorter monitoring.window_s, or a share of the users", LABEL_BYTES)
        yield ("impressions kept for late clicks, per partition",
               of_partition * streams.correction_window_s,
               streams.max_kept_impressions, "impressions",
               "accept that later clicks are counted and not corrected, or use more "
               "partitions and a greater streams.max_kept_impressions", WAITING_BYTES)
        yield ("impressions with an open label window, per worker",
               max(of_partition, of_worker) * streams.label_window_s,
               MACHINE_BYTES / WAITING_BYTES.at(), "impressions in 64 GB",
               "a shorter streams.label_window_s, or more workers", WAITING_BYTES)
        yield ("changed items that one refresher writes", self.changes_per_s,
               1e6 / REFRESH_US.at(), "rows per second",
               "fewer partitions, or a greater streams.flush_interval_ms", REFRESH_US)
        yield ("rows of items that a new replica reads before it is up to date", item_rows,
               600.0 * 1e6 / FILL_US.at(), "rows in ten minutes",
               "fewer partitions, or start replicas earlier", FILL_US)
        yield ("items in the two ONNX files", d.items,
               ONNX_BYTES / ITEM_BYTES.at(), "items in 2 GiB",
               "map rare items to the embeddings of unknown items", ITEM_BYTES)
        yield ("events that one machine cuts into examples",
               self.cut_events, MACHINE_DISK_BYTES / SPILLED_BYTES.at(), "events in 1 TB",
               "train on a share of the users, or cut on Spark", SPILLED_BYTES)
        yield ("training between two refreshes of one machine",
               self.core_hours / d.cores, 24.0, "hours",
               "torchrun on more machines, GPUs, or a share of the users", FIT_MS)
