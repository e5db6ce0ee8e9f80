"""Where the feature store is; filled by ``settings.py``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Feast's addresses and the rules that are ours to enforce."""

    redis: str = "127.0.0.1:6379"
    """Feast's connection string of the online store."""
    registry: str = ".data/registry.db"
    """A path (file registry) or an SQLAlchemy URL (SQL registry)."""
    log_dir: str = ".data/events"
    """The raw event log: date-partitioned Parquet, the offline truth."""
    partitions: int = 4
    """An item's counters are the sum of a share per partition of ``behavior-events``: as
    many as ``kafka.partitions``."""
    sequence_ttl_days: float = 90.0
    """An older sequence is served with status ``stale_sequence`` (Feast does not apply
    a view's ttl to online reads)."""
    item_refresh_s: float = 1.0
    """How often a server refreshes its table of items' counters from the store."""

    def __post_init__(self) -> None:
        if self.partitions < 1:
            raise ValueError(f"features.partitions is {self.partitions}; at least 1")
        if self.item_refresh_s <= 0:
            raise ValueError(f"features.item_refresh_s is {self.item_refresh_s}; > 0")
