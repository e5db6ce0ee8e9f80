"""Settings of the monitor: addresses, windows and prices."""

from dataclasses import dataclass, field
from typing import Literal

from srp4ctr.errors import MistakeError
from srp4ctr.streams.config import check_address


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig:
    """Addresses, windows and prices of the monitor."""

    host: str = "127.0.0.1"
    port: int = 9102
    prometheus_url: str = "http://127.0.0.1:9090"
    """Read by ``monitor open`` and ``monitor report``; "" for none."""
    window_s: float = 3600.0
    """Window of live quality, in seconds of event time."""
    snapshot_file: str = ""
    """File of the sums of labels, from which a restarted monitor resumes; "":
    ``monitor.snapshot`` in ``embedded.data_dir``."""
    snapshot_interval_s: float = 60.0
    """Interval of its writes, longer where they would take a twentieth of the time. Reading
    waits meanwhile: 0.3 s for 200,000 labels in the window. A restarted monitor reads the
    labels since the last write again."""
    share_by: Literal["", "group", "locks"] = ""
    """How several monitors share the partitions of labels and events: ``group``, by a
    consumer group of Apache Kafka; ``locks``, by file locks, on one machine and with the
    embedded broker. "": one monitor reads all of them."""
    group_id: str = "srp4ctr-monitors"
    """Consumer group of the monitors that share by ``group``."""
    shared_folder: str = ""
    """Folder that all monitors which share have: sums and snapshots of each partition; "":
    ``monitors`` in ``embedded.data_dir``."""
    poll_interval_s: float = 1.0
    page_port: int = 9105
    """Port of ``srp4ctr monitor open``, on 127.0.0.1."""
    expected_difference: float = 0.02
    """Click rate difference at position 1 at which a comparison's interval is narrowest.
    The interval is valid for any difference."""
    currency: str = "USD"
    price_per_core_hour: float = 0.045
    """Price of a CPU core of serving. The default is a cloud's list price in 2026; set your
    own."""
    price_per_gpu_hour: float = 0.8
    """Price of a GPU of serving."""
    probe_interval_s: float = 0.0
    """Interval of the synthetic user's freshness probe; 0: no probe."""

    tls_endpoints: dict[str, str] = field(default_factory=dict, hash=False)
    """Service → HOST:PORT of further servers whose certificates are watched. Those of
    Kafka, the store, the registry, Triton and the buckets follow from their settings."""
    certificate_files: tuple[str, ...] = ()
    """Further PEM files whose certificates are watched: those of other clients. Files that
    settings name are watched in any case."""

    def __post_init__(self) -> None:
        for name, address in self.tls_endpoints.items():
            check_address(f"monitoring.tls_endpoints.{name}", address)
        positive = ("window_s", "snapshot_interval_s", "poll_interval_s")
        for name in (*positive, "expected_difference"):
            if (value := getattr(self, name)) <= 0:
                raise MistakeError(f"monitoring.{name} is {value}; above 0")
        for name in ("price_per_core_hour", "price_per_gpu_hour", "probe_interval_s"):
            if (value := getattr(self, name)) < 0:
                raise MistakeError(f"monitoring.{name} is {value}; at least 0")
