"""Where the metrics are shown, and over which window."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig:
    """The exporter's address and windows."""

    host: str = "127.0.0.1"
    port: int = 9102
    window_s: float = 3600.0
    """Live quality covers the labels of the last so many seconds of event time."""
    poll_interval_s: float = 1.0
    page_port: int = 9105
    """Of ``srp4ctr monitor open``, on 127.0.0.1."""
    prometheus_url: str = "http://127.0.0.1:9090"
    """What the page draws from; "": there is none."""
