"""The ports of an embedded stack → ``stack.toml``, and lines to paste that name them."""

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srp4ctr.embedded import ports
from srp4ctr.embedded.broker import CLUSTER, NODES
from srp4ctr.embedded.config import STACK_FILE
from srp4ctr.setting_names import variable_of

# What settings.toml may say of other servers: their security (the embedded ones listen on
# 127.0.0.1 and need none, except Triton's control key), their buckets and replicas.
_OF_OTHERS: Mapping[str, Mapping[str, Any]] = {
    "kafka": {"security_protocol": "PLAINTEXT", "ssl_ca_file": "", "sasl_username": ""},
    "features": {
        "redis_tls": False,
        "redis_ca_file": "",
        "redis_username": "",
        "redis_password_file": "",
        "registry_password_file": "",
        "log_uri": "",
    },
    "training": {"bundles_uri": ""},
    "triton": {"control_key": "", "replicas": []},
    "triton.tls": {
        "enabled": False,
        "ca_file": "",
        "certificate_file": "",
        "key_file": "",
    },
}


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
    intake_port: int
    """Reserved for ``srp4ctr events serve``."""
    intake_metrics_port: int
    triton_http_port: int = 0
    """0: Triton was started without HTTP."""
    cluster_ports: tuple[int, ...] = ()
    """Of a store that is a cluster: the other nodes' ports, then all nodes' bus ports."""

    def scraped(self) -> dict[str, int]:
        """Return the port of each job that Prometheus scrapes."""
        return {
            "stream": self.worker_metrics_port,
            "monitor": self.monitor_port,
            "triton": self.triton_metrics_port,
            "caller": self.caller_metrics_port,
            "intake": self.intake_metrics_port,
        }

    def of(self, process: str) -> tuple[str, ...]:
        """Return the addresses and protocols of a process; () if it does not listen."""
        nodes = zip(CLUSTER, self.store_ports, strict=False)
        named = {
            "store": {self.redis_port: "Redis"},
            **{name: {port: "Redis"} for name, port in nodes},
            "broker": {self.kafka_port: "Kafka"},
            "kafka": {self.kafka_port: "Kafka"},
            "triton": {
                self.triton_grpc_port: "gRPC",
                self.triton_metrics_port: "metrics",
                **({self.triton_http_port: "HTTP"} if self.triton_http_port else {}),
            },
            "prometheus": {self.prometheus_port: "HTTP"},
            "stream": {self.worker_metrics_port: "metrics"},
            "monitor": {self.monitor_port: "metrics"},
            "page": {self.page_port: "HTTP"},
            "intake": {self.intake_port: "HTTP", self.intake_metrics_port: "metrics"},
        }
        found = named.get(process, {})
        return tuple(f"{ports.HOST}:{port} {found[port]}" for port in found)

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
                "redis": ",".join(f"{ports.HOST}:{port}" for port in self.store_ports),
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
            "intake": {
                "port": self.intake_port,
                "metrics_port": self.intake_metrics_port,
            },
            "monitoring": {
                "port": self.monitor_port,
                "page_port": self.page_port,
                "prometheus_url": self.prometheus_url,
            },
        }

    def stack_toml(self, control_key_file: Path) -> str:
        """Return the text of ``stack.toml``: the settings with which clients connect."""
        found, sections = self.settings(), []
        for section in dict.fromkeys((*found, *_OF_OTHERS)):
            values = {**found.get(section, {}), **_OF_OTHERS.get(section, {})}
            if section == "triton":
                values["control_key_file"] = str(control_key_file)
            # TOML forbids the surrogates as which JSON would write 🎬.
            texts = (json.dumps(value, ensure_ascii=False) for value in values.values())
            lines = (f"{name} = {text}\n" for name, text in zip(values, texts, strict=True))
            sections.append(f"[{section}]\n{''.join(lines)}")
        heading = "# Written by `srp4ctr stack up`; gone after `srp4ctr stack down`.\n\n"
        return heading + "\n".join(sections)

    def moved_sentence(self) -> str:
        """Return one line that names the ports that are not the well-known ones, or ""."""
        known = {part: getattr(self, part.name, 0) for part in ports.PARTS}
        moved = [
            f"{part.title} {part.well_known} → {port}"
            for part, port in known.items()
            if part.well_known and port not in (0, part.well_known)
        ]
        start = "other ports than the well-known ones: "
        return f"{start}{', '.join(moved)}" if moved else ""

    def snippets(self, running: Collection[str]) -> Iterator[str]:
        """Yield lines to paste: settings, clients and pages of ``running`` processes."""
        if running:  # every command then finds stack.toml, and each part's address in it
            folder = Path(self.data_dir)
            yield f"settings of this stack: {folder / STACK_FILE}"
            variable = variable_of(("embedded", "data_dir"))
            yield f"export {variable}={shlex.quote(str(folder))}"
        if {"broker", "kafka"} & set(running):
            yield "from srp4ctr import EventPublisher, KafkaConfig"
            bootstrap = f"{ports.HOST}:{self.kafka_port}"
            yield f'publisher = EventPublisher(KafkaConfig(bootstrap="{bootstrap}"))'
        if "triton" in running:
            yield "from srp4ctr import RankClient"
            yield f'client = RankClient("{ports.HOST}:{self.triton_grpc_port}")'
        pages = {
            "page": (self.page_port, ""),
            "stream worker": (self.worker_metrics_port, "metrics"),
            "monitor": (self.monitor_port, "metrics"),
            "HTTP intake": (self.intake_port, "health"),
            "Triton": (self.triton_metrics_port, "metrics"),
            "callers of Triton": (self.caller_metrics_port, "metrics"),
            "Prometheus": (self.prometheus_port, "graph"),
        }
        for name, (port, path) in pages.items():
            if port and ports.is_open(port):
                yield f"{name}: http://{ports.HOST}:{port}/{path}"
