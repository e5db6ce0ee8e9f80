"""Runs the whole local stack, and injects faults into its processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.operations.soak_traffic import catalogue_events, past_events
from benchmarks.serving.promotion_faults import kill_a_process, renamed
from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, broker, ports, stack
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.setting_names import PREFIX
from srp4ctr.settings import Settings, load
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.testing.serving_stack import fresh_bundle
from srp4ctr.triton_repo.config import TritonConfig

LENGTH, WORKERS = 50, 2
MONITORS = ("monitor", "monitor2")  # they share the partitions
SERVING_KILLED = "a serving process killed"
# A monitor has this metric where it adds up the sums of all.
FIGURES_SHOWN = "srp4ctr_figures_behind_seconds"
_START_S = 240.0
# Memory grows until these windows are full: they must be within the warm-up.
SETTINGS = {
    "STREAMS__LABEL_WINDOW_S": "6",
    "STREAMS__CORRECTION_WINDOW_S": "120",
    "MONITORING__WINDOW_S": "120",
    "MONITORING__PROBE_INTERVAL_S": "10",
    "MONITORING__SHARE_BY": "group",
}


@dataclass(slots=True, kw_only=True)
class Soaked:
    """A running stack, with workers and a monitor."""

    folder: Path
    settings: Settings
    metrics_ports: tuple[int, ...]
    """One of each worker."""
    second_monitor_port: int
    past_events: int = 0
    """Published before anyone visits, so that histories are full from the first visit."""
    versions: Iterator[int] = field(default_factory=lambda: iter(range(2, 10_000)))

    @property
    def triton(self) -> TritonConfig:
        """As ``promotion_faults`` needs it."""
        return self.settings.triton

    @property
    def server(self) -> processes.Running:
        """Triton's own process."""
        return self.running("triton")

    def running(self, name: str) -> processes.Running:
        """Return the process ``name``."""
        (found,) = [each for each in processes.find(self.folder) if each.name == name]
        return found

    def check_alive(self) -> None:
        """Raise ``RuntimeError`` if a part has ended by itself."""
        names = {each.name for each in processes.find(self.folder)}
        parts = {"store", "triton", "watch", *MONITORS}
        if gone := sorted(parts - names):
            raise RuntimeError(f"ended: {', '.join(gone)}; logs are in {self.folder}/logs")

    @property
    def workers(self) -> list[str]:
        """Names of the stream workers."""
        return [f"worker{number}" for number in range(len(self.metrics_ports))]

    def revive(self) -> int:
        """Start the workers that have ended, as compose does; return how many had.

        A worker ends when no broker takes its labels for 40 seconds.
        """
        names = {each.name for each in processes.find(self.folder)}
        ended = [n for n, name in enumerate(self.workers) if name not in names]
        for number in ended:
            self.start_worker(number)
        return len(ended)

    def serving_crashes(self) -> int:
        """Return how often Triton's watchdog found that a process had crashed."""
        return (self.folder / "logs" / "watch.log").read_text().count("has crashed")

    def faults(self) -> Mapping[str, Callable[[], None]]:
        """Return what is done in turn."""
        return {
            "a worker killed": self.kill_worker,
            "a bundle promoted": self.promote,
            SERVING_KILLED: self.kill_serving,
            "the store killed": self.restart_store,
            "a monitor killed": self.kill_monitor,
            "a rollback": partial(self.command, "model", "rollback"),
            "Kafka stopped": self.restart_kafka,
        }

    def kill_worker(self) -> None:
        """Kill the last worker: the first one lives all the while."""
        self._kill(self.workers[-1])
        self.start_worker(len(self.workers) - 1)

    def kill_serving(self) -> None:
        """Kill a process that answers; return when another one does."""
        kill_a_process(self)

    def kill_monitor(self) -> None:
        """Kill the monitor that shows the figures, if one does, and start it again."""
        name = next(filter(self.shows_figures, MONITORS), MONITORS[0])
        self._kill(name)
        self.start_monitor(name)

    def restart_store(self) -> None:
        """Kill Valkey and start it with the data that it had."""
        self._kill("store")
        port = int(self.settings.features.redis.rpartition(":")[2])
        broker.start_store(self.folder, port, tied=True)

    def restart_kafka(self) -> None:
        """Stop Kafka as an operator does, and start it again."""
        processes.stop(self.running("kafka"), self.folder, grace_s=30.0)
        numbers = json.loads((self.folder / "ports.json").read_text())
        apache_kafka.start(self.folder, numbers[0], numbers[8], tied=True)

    def promote(self) -> None:
        """Serve a new version of the same weights."""
        first = Path(self.settings.training.bundles_dir) / "v1"
        folder = renamed(first, f"v{next(self.versions)}")
        self.command("model", "promote", folder.name)

    def command(self, *words: str) -> None:
        """Type ``srp4ctr WORDS``; raises ``RuntimeError`` with its output."""
        program = [sys.executable, "-m", "srp4ctr.cli", *words]
        result = subprocess.run(program, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(words)}: {result.stdout}{result.stderr}")

    def start_worker(self, number: int) -> None:
        """Start a stream worker; return when it shows its metrics."""
        port = self.metrics_ports[number]
        env = {f"{PREFIX}STREAMS__METRICS_PORT": str(port)}
        program = processes.python(
            f"worker{number}", "-m", "srp4ctr.cli", "stream", "run", env=env
        )
        self._start(program, port)

    def start_monitor(self, name: str) -> None:
        """Start a monitor; return when it shows its metrics."""
        port, env = self.monitor_ports[name], {}
        if name != MONITORS[0]:
            env = {
                f"{PREFIX}MONITORING__PORT": str(port),
                f"{PREFIX}MONITORING__PROBE_INTERVAL_S": "0",  # one probe is enough
            }
        words = ("-m", "srp4ctr.cli", "monitor", "run")
        self._start(processes.python(name, *words, env=env), port)

    @property
    def monitor_ports(self) -> Mapping[str, int]:
        """The port of each monitor's page."""
        ports = (self.settings.monitoring.port, self.second_monitor_port)
        return dict(zip(MONITORS, ports, strict=True))

    def shows_figures(self, name: str) -> bool:
        """Return whether the monitor exports the figures of all partitions."""
        try:
            page = read_metrics(f"http://127.0.0.1:{self.monitor_ports[name]}/metrics")
            return any(each.name == FIGURES_SHOWN and each.samples for each in page)
        except (OSError, ValueError):  # it starts
            return False

    def _start(self, program: processes.Program, port: int) -> None:
        running = processes.start(program, self.folder, tied=True)
        is_open = partial(ports.is_open, port)
        processes.wait_ready(running, is_open, timeout_s=_START_S)

    def _kill(self, name: str) -> None:
        running = self.running(name)
        os.kill(running.pid, signal.SIGKILL)
        processes.stop(running, self.folder)


@contextmanager
def soaked(folder: Path) -> Iterator[Soaked]:
    """Yield the stack with a catalogue and a model that serves; end it afterwards."""
    os.environ[f"{PREFIX}EMBEDDED__DATA_DIR"] = str(folder)
    os.environ[f"{PREFIX}EMBEDDED__BROKER"] = "kafka"
    for name, value in SETTINGS.items():
        os.environ[PREFIX + name] = value
    try:
        with ports.reserved_ports(WORKERS + 1) as (second_monitor_port, *metrics_ports):
            stack.up(load().embedded, tied=True)
            made = Soaked(
                folder=folder,
                settings=load(),
                metrics_ports=tuple(metrics_ports),
                second_monitor_port=second_monitor_port,
            )
            _fill(made)
            yield made
    finally:
        stack.down(load().embedded)


def _fill(made: Soaked) -> None:
    settings = made.settings
    made.command("features", "apply")
    ensure_topics(settings.kafka)
    for number in range(len(made.metrics_ports)):
        made.start_worker(number)
    for name in MONITORS:
        made.start_monitor(name)
    with EventPublisher(settings.kafka) as publisher:
        for update in catalogue_events(time.time_ns() // 1_000_000):
            publisher.publish(update)
        for event in past_events(time.time_ns() // 1_000_000, LENGTH):
            publisher.publish(event)
            made.past_events += 1
    fresh_bundle(Path(settings.training.bundles_dir), LENGTH)
    made.command("model", "promote", "v1")
