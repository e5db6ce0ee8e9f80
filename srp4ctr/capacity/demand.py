"""What is asked of the system, and how many of each of its processes that makes."""

import math
from dataclasses import dataclass, field

from srp4ctr.capacity import constants as measured
from srp4ctr.features.item_table import MAX_ITEMS_A_TURN
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import RefreshConfig

_ABOVE_0 = (
    *("users", "items", "events_per_s", "requests_per_s", "candidates", "history"),
    *("utilisation", "retention_days", "copies", "cores", "train_days"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The busiest hour, and how the system is to be laid out for it."""

    users: int
    items: int
    events_per_s: float
    requests_per_s: float
    candidates: int = 100
    """A request."""
    history: int = 50
    """L: a user's last behaviours."""
    partitions: int = 0
    """Of each topic; 0: twice the workers, so that they may double."""
    utilisation: float = 0.6
    """Share of each core that is planned for: the rest is for a lost machine, and waits."""
    retention_days: float = 7.0
    """Kafka keeps events and labels so long; the raw log keeps them for good."""
    copies: int = 2
    """Of Kafka's and Redis's data."""
    cores: int = 16
    """Of a machine that serves or trains."""
    train_days: float = 1.0
    """A refresh learns from what so many days brought."""
    gpu_times: float = 0.0
    """A GPU trains so many times as fast as a core; 0: nobody has measured it."""

    def __post_init__(self) -> None:
        for name in _ABOVE_0:
            if not 0 < getattr(self, name) < math.inf:
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise ValueError(f"--{flag} is {value:g}; it must be above 0")
        for name in ("partitions", "gpu_times"):
            if not 0 <= getattr(self, name) < math.inf:
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise ValueError(f"--{flag} is {value:g}; it must be at least 0")
        if self.utilisation > 1.0:
            raise ValueError(
                f"--utilisation is {self.utilisation:g}; a share of a core, at most 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Of a month."""

    currency: str = "USD"
    core_hour: float = 0.045
    memory_gb_month: float = 3.0
    disk_gb_month: float = 0.08

    def __post_init__(self) -> None:
        for name in ("core_hour", "memory_gb_month", "disk_gb_month"):
            if not 0 <= getattr(self, name) < math.inf:
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise ValueError(f"--price-{flag} is {value:g}; it must be at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """The settings that it depends on."""

    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    streams: StreamConfig = field(default_factory=StreamConfig)
    monitor_window_s: float = 3600.0
    item_refresh_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many of each process a demand makes."""

    demand: Demand
    dials: Dials = field(default_factory=Dials)

    def cores_for(self, busy: float) -> int:
        """Return how many cores are planned where ``busy`` would always be busy."""
        return math.ceil(round(busy / self.demand.utilisation, 6))

    @property
    def workers(self) -> int:
        """Stream workers, a core each."""
        each_us = measured.WORKER_US_PER_EVENT.at(self.demand.history).value
        return self.cores_for(self.demand.events_per_s * each_us / 1e6)

    @property
    def partitions(self) -> int:
        """Of each topic."""
        return self.demand.partitions or max(4, 2 * self.workers)

    @property
    def ranking_processes(self) -> int:
        """Triton's processes that rank, a core each."""
        each_s = measured.FOLDED.a_request(self.demand.history, self.demand.candidates)
        return self.cores_for(self.demand.requests_per_s * each_s.value)

    @property
    def impressions_per_s(self) -> float:
        """Shown, and labelled later."""
        return self.demand.events_per_s * measured.IMPRESSIONS_SHARE

    @property
    def table_reads_per_s(self) -> float:
        """Items that the tables of all ranking processes read from the store."""
        a_turn = min(self.demand.items, MAX_ITEMS_A_TURN)
        return self.ranking_processes * a_turn / self.dials.item_refresh_s
