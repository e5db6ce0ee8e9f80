"""What the stream worker and the publisher need to know; filled by ``settings.py``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """Where the broker is, and how its topics are laid out."""

    bootstrap: str = "127.0.0.1:9092"
    """Comma-separated host:port list."""
    partitions: int = 4
    """Partitions of each topic that the project creates."""
    replication: int = 1

    def __post_init__(self) -> None:
        if self.partitions < 1:
            raise ValueError(f"kafka.partitions is {self.partitions}; at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How events become sequences, counters and labels."""

    group_id: str = "srp4ctr-sequences"
    log_group_id: str = "srp4ctr-event-log"
    sequence_length: int = 50
    """L: the last L behaviours of a user are kept."""
    label_window_s: float = 1800.0
    """An impression waits so long, in event time, for its click."""
    correction_window_s: float = 86_400.0
    """After its window an impression is kept so long for a late click's correction."""
    flush_interval_ms: int = 200
    """Dirty users are coalesced for so long before they are written to the store."""
    max_poll_records: int = 2000
    log_flush_records: int = 20_000
    log_flush_interval_s: float = 2.0
    """The raw log closes a file at so many records or after so many seconds."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9101

    def __post_init__(self) -> None:
        if self.sequence_length < 1:
            raise ValueError(f"streams.sequence_length is {self.sequence_length}; ≥ 1")
        if self.label_window_s <= 0 or self.correction_window_s < 0:
            raise ValueError("streams.label_window_s must be > 0, corrections ≥ 0")
