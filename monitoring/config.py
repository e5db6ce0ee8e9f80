"""Where the metrics are shown, over which window, and what serving costs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig:
    """The exporter's address and windows, and the prices of machines."""

    host: str = "127.0.0.1"
    port: int = 9102
    prometheus_url: str = "http://127.0.0.1:9090"
    """Where ``monitor open`` and ``monitor report`` read series; "": there is none."""
    window_s: float = 3600.0
    """Live quality covers the labels of the last so many seconds of event time."""
    poll_interval_s: float = 1.0
    page_port: int = 9105
    """Of ``srp4ctr monitor open``, on 127.0.0.1."""
    expected_difference: float = 0.02
    """Of the click rates at position 1 of two versions that are compared: where their
    interval is narrowest. It holds whatever the difference is."""
    currency: str = "USD"
    price_per_core_hour: float = 0.045
    """Of a CPU core that serves. A cloud's list price of a general machine in 2026; put
    yours here."""
    price_per_gpu_hour: float = 0.8
    """Of a GPU that serves."""
    probe_interval_s: float = 0.0
    """A synthetic user acts and asks so often; 0: never."""

    def __post_init__(self) -> None:
        for name in ("window_s", "poll_interval_s", "expected_difference"):
            if getattr(self, name) <= 0:
                raise ValueError(f"monitoring.{name} is {getattr(self, name)}; above 0")
        for name in ("price_per_core_hour", "price_per_gpu_hour", "probe_interval_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"monitoring.{name} is {getattr(self, name)}; at least 0")
