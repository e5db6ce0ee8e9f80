"""Runs a broker, Valkey and stream workers as processes that can be killed and frozen.

Each worker is ``srp4ctr stream run`` with a settings file and a metrics port of its own.
All run on this machine, in one folder; start them from the main thread: they end with it.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redis import Redis

from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, broker, ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.testing.object_store import BUCKET, ObjectStore

MAX_WORKERS = 4
_FIRST_WORKER = 4  # of ports
_START_S = 240.0  # Feast's import alone takes some seconds, of every worker at once


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A running stack, its addresses and its processes by name."""

    folder: Path
    which: str
    """The broker: ``kafka`` or ``noida``."""
    kafka: KafkaConfig
    streams: StreamConfig
    features: FeatureConfig
    ports: tuple[int, ...]
    """Of the broker, Kafka's controller, Valkey and its replica, then one per worker."""
    objects: ObjectStore | None
    """The server of the raw log's bucket, where it is in one."""
    running: dict[str, processes.Running] = field(default_factory=dict)

    def start_kafka(self) -> None:
        """Start the broker with the data it had; return when it answers."""
        if self.which == "kafka":
            started = apache_kafka.start(self.folder, *self.ports[:2], tied=True)
        else:
            started = broker.start_broker(self.folder, self.ports[0], tied=True)
        self.running["kafka"] = started

    def start_store(self) -> None:
        """Start Valkey with the data it had; return when it answers."""
        started = broker.start_store(self.folder, self.ports[2], tied=True)
        self.running["store"] = started

    def copy_store(self) -> None:
        """Start a replica of Valkey, and cut it off once it has all rows."""
        main, port = self.ports[2:4]
        options = ("--replicaof", ports.HOST, str(main))
        copy = broker.start_store(self.folder, port, *options, tied=True, name="replica")
        self.running["replica"] = copy
        with Redis(host=ports.HOST, port=port) as client:
            processes.wait_ready(
                copy,
                lambda: client.info("replication")["master_link_status"] == "up",
                timeout_s=_START_S,
            )
            client.execute_command("REPLICAOF", "NO", "ONE")

    def fail_over(self) -> None:
        """End Valkey; its replica answers at its address, with the rows that it has."""
        self.kill("store")
        self.stop("replica")
        shutil.rmtree(self.folder / "store")
        (self.folder / "replica").rename(self.folder / "store")
        self.start_store()

    def start_objects(self) -> None:
        """Start the raw log's server, if there is one, with the objects it had."""
        if self.objects:
            self.running["objects"] = self.objects.start()

    def metrics_port(self, number: int) -> int:
        """Return the port on which worker ``number`` shows its metrics."""
        return self.ports[_FIRST_WORKER + number]

    def start_worker(self, number: int) -> processes.Running:
        """Start worker ``number``; return at once."""
        name = f"worker{number}"
        env = {
            "SRP4CTR_SETTINGS": str(self.folder / "settings.toml"),
            "SRP4CTR_STREAMS__METRICS_PORT": str(self.metrics_port(number)),
        }
        program = processes.python(name, "-m", "srp4ctr.cli", "stream", "run", env=env)
        self.running[name] = processes.start(program, self.folder, tied=True)
        return self.running[name]

    def wait_ready(self, *numbers: int) -> None:
        """Return when the workers show their metrics; they join their groups then."""
        for number in numbers:
            is_open = partial(ports.is_open, self.metrics_port(number))
            worker = self.running[f"worker{number}"]
            processes.wait_ready(worker, is_open, timeout_s=_START_S)

    def kill(self, name: str) -> None:
        """End a process with SIGKILL, so that it can do nothing about it."""
        running = self.running.pop(name)
        os.kill(running.pid, signal.SIGKILL)
        processes.stop(running, self.folder)

    def stop(self, name: str) -> None:
        """End a process with SIGTERM, and wait for its shutdown."""
        processes.stop(self.running.pop(name), self.folder, grace_s=30.0)

    def freeze(self, name: str) -> None:
        """Stop a process's execution; its connections stay open."""
        os.kill(self.running[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Continue a frozen process as if no time had passed."""
        os.kill(self.running[name].pid, signal.SIGCONT)

    def check_alive(self) -> None:
        """Raise ``ProcessError`` if a process has ended without a stop."""
        for running in self.running.values():
            processes.check_alive(running)

    def close(self) -> None:
        """End everything, frozen or not, the workers first."""
        for name in sorted(self.running, reverse=True):
            with suppress(ProcessLookupError):  # it may have ended already
                self.thaw(name)
                self.kill(name)


@contextmanager
def cluster(
    folder: Path,
    streams: StreamConfig,
    partitions: int,
    which: str = "kafka",
    *,
    in_bucket: bool = False,
) -> Iterator[Cluster]:
    """Yield a broker with our topics, Valkey with our views, and no worker yet.

    With ``in_bucket`` the raw log is in a bucket, whose keys are in the environment.
    """
    # The ports stay reserved: what is restarted needs its own one again.
    with ports.reserved_ports(_FIRST_WORKER + MAX_WORKERS + 1) as (*numbers, last):
        objects = ObjectStore(folder=folder, port=last) if in_bucket else None
        os.environ.update(objects.environment() if objects else {})
        bootstrap = f"{ports.HOST}:{numbers[0]}"
        whole = Cluster(
            folder=folder,
            which=which,
            kafka=KafkaConfig(bootstrap=bootstrap, partitions=partitions),
            streams=streams,
            features=_features(folder, numbers[2], partitions, in_bucket),
            ports=tuple(numbers),
            objects=objects,
        )
        _write_settings(whole)
        try:
            whole.start_store()
            whole.start_objects()
            with ThreadPoolExecutor(1) as pool:  # both take some seconds
                applied = pool.submit(_apply_views, whole.features)
                whole.start_kafka()
                ensure_topics(whole.kafka)
                applied.result()
            yield whole
        finally:
            whole.close()


def _features(
    folder: Path, redis_port: int, partitions: int, in_bucket: bool
) -> FeatureConfig:
    return FeatureConfig(
        redis=f"{ports.HOST}:{redis_port}",
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
        log_uri=f"s3://{BUCKET}/events" if in_bucket else "",
        partitions=partitions,
    )


def _apply_views(features: FeatureConfig) -> None:
    from srp4ctr.features.online.feast_store import apply  # Feast: 3 s

    apply(features)


def _write_settings(whole: Cluster) -> None:
    whole.folder.mkdir(parents=True, exist_ok=True)
    sections = {
        "kafka": (whole.kafka, ("bootstrap", "partitions")),
        "streams": (
            whole.streams,
            ("label_window_s", "correction_window_s", "sequence_length"),
        ),
        "features": (whole.features, ("redis", "registry", "log_dir", "log_uri")),
    }
    lines = ["[embedded]", f"data_dir = {str(whole.folder)!r}"]
    for section, (config, names) in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {getattr(config, name)!r}" for name in names]
    (whole.folder / "settings.toml").write_text("\n".join(lines) + "\n")
