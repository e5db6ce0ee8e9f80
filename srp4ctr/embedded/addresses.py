"""The ports of an embedded stack → the settings with which other processes reach it."""

from dataclasses import dataclass
from pathlib import Path

from srp4ctr.embedded import ports
from srp4ctr.embedded.store_cluster import NAMES, NODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The ports of a stack's parts, and its data folder."""

    data_dir: str
    broker: str
    kafka_port: int
    redis_port: int
    triton_grpc_port: int
    triton_metrics_port: int
    worker_metrics_port: int
    """Reserved for the stream worker, which ``srp4ctr stream run`` starts."""
    monitor_port: int
    caller_metrics_port: int
    """Reserved for a caller of Triton that exports its latency, as ``RankClient`` can."""
    page_port: int
    """Reserved for ``srp4ctr monitor open``."""
    prometheus_port: int
    """0 where Prometheus is not installed."""
    cluster_ports: tuple[int, ...] = ()
    """Of a store that is a cluster: the other nodes' ports, then all nodes' bus ports."""

    def scraped(self) -> dict[str, int]:
        """Return the port of each job that Prometheus scrapes."""
        return {
            "stream": self.worker_metrics_port,
            "monitor": self.monitor_port,
            "triton": self.triton_metrics_port,
            "caller": self.caller_metrics_port,
        }

    def of(self, process: str) -> tuple[str, ...]:
        """Return where a process of the stack listens, and what for; () if it does not."""
        nodes = zip(NAMES, self.store_ports, strict=False)
        named: dict[str, tuple[tuple[int, str], ...]] = {
            "store": ((self.redis_port, "Redis"),),
            **{name: ((port, "Redis"),) for name, port in nodes},
            "broker": ((self.kafka_port, "Kafka"),),
            "kafka": ((self.kafka_port, "Kafka"),),
            "triton": (
                (self.triton_grpc_port, "gRPC"),
                (self.triton_metrics_port, "metrics"),
            ),
            "prometheus": ((self.prometheus_port, "HTTP"),),
            "stream": ((self.worker_metrics_port, "metrics"),),
            "monitor": ((self.monitor_port, "metrics"),),
            "page": ((self.page_port, "HTTP"),),
        }
        found = named.get(process, ())
        return tuple(f"{ports.HOST}:{port} {use}" for port, use in found)

    @property
    def prometheus_url(self) -> str:
        """The stack's Prometheus; "" where none is installed, so that 9090 is not used."""
        port = self.prometheus_port
        return f"http://{ports.HOST}:{port}" if port else ""

    @property
    def store_ports(self) -> tuple[int, ...]:
        """The ports of the store's nodes: one, or all of a cluster."""
        return (self.redis_port, *self.cluster_ports[: NODES - 1])

    def settings(self) -> dict[str, dict[str, str | int]]:
        """Return the addresses in the sections of ``settings.toml``."""
        folder = Path(self.data_dir)
        return {
            "kafka": {"bootstrap": f"{ports.HOST}:{self.kafka_port}"},
            "features": {
                "redis": ",".join(f"{ports.HOST}:{each}" for each in self.store_ports),
                "redis_cluster": bool(self.cluster_ports),
                "registry": str(folder / "registry.db"),
                "log_dir": str(folder / "events"),
            },
            "training": {"bundles_dir": str(folder / "bundles")},
            "triton": {
                "grpc": f"{ports.HOST}:{self.triton_grpc_port}",
                "metrics_url": f"http://{ports.HOST}:{self.triton_metrics_port}/metrics",
                "repository": str(folder / "triton"),
            },
            "streams": {"metrics_port": self.worker_metrics_port},
            "monitoring": {
                "port": self.monitor_port,
                "page_port": self.page_port,
                "prometheus_url": self.prometheus_url,
            },
        }
