"""What breaks first: what one process, file or setting holds, however many machines run."""

from dataclasses import dataclass

from srp4ctr.capacity import constants as measured
from srp4ctr.capacity.demand import Layout
from srp4ctr.features.item_table import MAX_ITEMS_A_TURN

MACHINE_BYTES = 64e9  # of memory, where a part cannot be spread
HOURS_BETWEEN_REFRESHES = 24.0
OLDEST_COUNTERS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What is needed of one part, and what it holds."""

    what: str
    needed: float
    holds: float
    unit: str
    remedy: str
    source: str

    @property
    def times(self) -> float:
        """How many times what it holds is needed; above 1 it breaks."""
        return self.needed / self.holds


def limits(layout: Layout, training_hours: float) -> tuple[Limit, ...]:
    """Return all limits, the worst first."""
    found = (
        *_of_the_monitor(layout),
        *_of_the_streams(layout),
        *_of_the_items(layout),
        *_of_training(layout, training_hours),
    )
    return tuple(sorted(found, key=lambda each: -each.times))


def _of_the_monitor(layout: Layout) -> tuple[Limit, ...]:
    labels = layout.impressions_per_s
    return (
        Limit(
            what="labels that the one monitor counts",
            needed=labels,
            holds=1e6 / measured.LABEL_US.value,
            unit="a second",
            remedy="give it a topic with a share of the users' labels",
            source=measured.LABEL_US.source,
        ),
        Limit(
            what="labels in the monitor's window",
            needed=labels * layout.dials.monitor_window_s,
            holds=MACHINE_BYTES / measured.LABEL_BYTES.value,
            unit="labels in 64 GB",
            remedy="a shorter monitoring.window_s, or a share of the users",
            source=measured.LABEL_BYTES.source,
        ),
    )


def _of_the_streams(layout: Layout) -> tuple[Limit, ...]:
    config = layout.dials.streams
    of_partition = layout.impressions_per_s / layout.partitions
    open_windows = of_partition * config.label_window_s
    a_worker = max(1.0, layout.partitions / layout.workers)
    return (
        Limit(
            what="impressions kept for late clicks, a partition",
            needed=of_partition * config.correction_window_s,
            holds=config.max_kept_impressions,
            unit="impressions",
            remedy="let later clicks be counted and not corrected, or more partitions and "
            "a greater streams.max_kept_impressions",
            source=measured.WAITING_IMPRESSION_BYTES.source,
        ),
        Limit(
            what="impressions whose window is open, a worker",
            needed=open_windows * a_worker,
            holds=MACHINE_BYTES / measured.WAITING_IMPRESSION_BYTES.value,
            unit="impressions in 64 GB",
            remedy="a shorter streams.label_window_s, or more workers",
            source=measured.WAITING_IMPRESSION_BYTES.source,
        ),
    )


def _of_the_items(layout: Layout) -> tuple[Limit, ...]:
    items, every_s = layout.demand.items, layout.dials.item_refresh_s
    return (
        Limit(
            what="items whose counters serving has younger than a minute",
            needed=items,
            holds=MAX_ITEMS_A_TURN * OLDEST_COUNTERS_S / every_s,
            unit="items",
            remedy="rank fewer items a server: those in demand are read first",
            source="features/item_table.py: MAX_ITEMS_A_TURN",
        ),
        Limit(
            what="items that a process's table copies each turn",
            needed=items,
            holds=every_s * 1e6 / measured.TABLE_TURN_S_PER_MILLION_ITEMS.value,
            unit="items, on a whole core",
            remedy="a greater features.item_refresh_s, or fewer items a server",
            source=measured.TABLE_TURN_S_PER_MILLION_ITEMS.source,
        ),
        Limit(
            what="items in the two ONNX files",
            needed=items,
            holds=measured.MOST_FILE_BYTES / measured.ITEM_BYTES_IN_A_FILE,
            unit="items in 2 GiB",
            remedy="leave rare items to the rows for unknown ones",
            source="training/config.py: D = 64",
        ),
    )


def _of_training(layout: Layout, hours: float) -> tuple[Limit, ...]:
    demand = layout.demand
    return (
        Limit(
            what="events that one machine cuts into examples",
            needed=demand.events_per_s * demand.train_days * 86_400.0,
            holds=MACHINE_BYTES / measured.CUT_EVENT_BYTES.value,
            unit="events in 64 GB",
            remedy="train on a share of the users, or cut on Spark",
            source=measured.CUT_EVENT_BYTES.source,
        ),
        Limit(
            what="training between two refreshes of one machine",
            needed=hours,
            holds=HOURS_BETWEEN_REFRESHES,
            unit="hours",
            remedy="torchrun on more machines, GPUs, or a share of the users",
            source=measured.FINETUNING_MS_PER_IMPRESSION.source,
        ),
    )
