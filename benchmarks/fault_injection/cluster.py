"""Apache Kafka, Valkey and stream workers as processes that can be killed and frozen.

Each worker is ``srp4ctr stream run``, told by a settings file and its own metrics port. All
run on this machine, in one folder; start them from the main thread, whose end they notice.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, broker, ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig

PARTITIONS = 6
MAX_WORKERS = 4
_START_S = 90.0  # Feast's import alone takes some seconds, of every worker at once


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A running stack, its addresses and its processes by name."""

    folder: Path
    kafka: KafkaConfig
    streams: StreamConfig
    features: FeatureConfig
    ports: tuple[int, ...]
    """Kafka, its controller, Valkey, then one of metrics per worker."""
    running: dict[str, processes.Running] = field(default_factory=dict)

    def start_kafka(self) -> None:
        """Start the broker with the data it had; return when it answers."""
        self.running["kafka"] = apache_kafka.start(
            self.folder, self.ports[0], self.ports[1], tied=True
        )

    def start_store(self) -> None:
        """Start Valkey with the data it had; return when it answers."""
        started = broker.start_store(self.folder, self.ports[2], tied=True)
        self.running["store"] = started

    def start_worker(self, number: int) -> None:
        """Start worker ``number``; return at once."""
        name = f"worker{number}"
        env = {
            "SRP4CTR_SETTINGS": str(self.folder / "settings.toml"),
            "SRP4CTR_STREAMS__METRICS_PORT": str(self.ports[3 + number]),
        }
        program = processes.python(name, "-m", "srp4ctr.cli", "stream", "run", env=env)
        self.running[name] = processes.start(program, self.folder, tied=True)

    def wait_ready(self, *numbers: int) -> None:
        """Return when the workers show their metrics; they join their groups then."""
        for number in numbers:
            is_open = partial(ports.is_open, self.ports[3 + number])
            worker = self.running[f"worker{number}"]
            processes.wait_ready(worker, is_open, timeout_s=_START_S)

    def kill(self, name: str) -> None:
        """End a process with SIGKILL, so that it can do nothing about it."""
        running = self.running.pop(name)
        os.kill(running.pid, signal.SIGKILL)
        processes.stop(running, self.folder)

    def stop(self, name: str) -> None:
        """End a process with SIGTERM, and wait for it as long as it takes to hand over."""
        processes.stop(self.running.pop(name), self.folder, grace_s=30.0)

    def freeze(self, name: str) -> None:
        """Let a process stand still; its connections stay open."""
        os.kill(self.running[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen process go on as if no time had passed."""
        os.kill(self.running[name].pid, signal.SIGCONT)

    def check_alive(self) -> None:
        """Raise ``ProcessError`` if a process has ended that nobody ended."""
        for running in self.running.values():
            processes.check_alive(running)

    def close(self) -> None:
        """End everything, frozen or not, the workers first."""
        for name in sorted(self.running, reverse=True):
            with suppress(ProcessLookupError):  # it may have ended by itself
                self.thaw(name)
                self.kill(name)


@contextmanager
def cluster(folder: Path, streams: StreamConfig) -> Iterator[Cluster]:
    """Yield Kafka with our topics, Valkey with our views, and no worker yet."""
    # The ports stay reserved: what is restarted wants its own one back.
    with ports.reserved_ports(3 + MAX_WORKERS) as numbers:
        kafka = KafkaConfig(bootstrap=f"{ports.HOST}:{numbers[0]}", partitions=PARTITIONS)
        features = FeatureConfig(
            redis=f"{ports.HOST}:{numbers[2]}",
            registry=str(folder / "registry.db"),
            log_dir=str(folder / "events"),
            partitions=PARTITIONS,
        )
        whole = Cluster(
            folder=folder, kafka=kafka, streams=streams, features=features, ports=numbers
        )
        _write_settings(whole)
        try:
            whole.start_store()
            with ThreadPoolExecutor(1) as aside:  # both take some seconds
                applied = aside.submit(_apply_views, features)
                whole.start_kafka()
                ensure_topics(kafka)
                applied.result()
            yield whole
        finally:
            whole.close()


def _apply_views(features: FeatureConfig) -> None:
    from srp4ctr.features.online.feast_store import apply  # Feast: 3 s

    apply(features)


def _write_settings(whole: Cluster) -> None:
    sections: dict[str, dict[str, Any]] = {
        "kafka": {"bootstrap": whole.kafka.bootstrap, "partitions": PARTITIONS},
        "streams": {
            "label_window_s": whole.streams.label_window_s,
            "correction_window_s": whole.streams.correction_window_s,
            "sequence_length": whole.streams.sequence_length,
        },
        "features": {
            "redis": whole.features.redis,
            "registry": whole.features.registry,
            "log_dir": whole.features.log_dir,
        },
        "embedded": {"data_dir": str(whole.folder)},
    }
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value!r}" for name, value in values.items()]
    (whole.folder / "settings.toml").write_text("\n".join(lines) + "\n")
