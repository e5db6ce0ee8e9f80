"""Runs monitors as processes on Apache Kafka, and publishes the labels that they read."""

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
from aiokafka import AIOKafkaProducer

from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, ports
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.monitoring.collector.service import run_monitor
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import LABELS_TOPIC, item_key
from srp4ctr.streams.state.label_join import ImpressionLabel, encode_label

WINDOW_S, LABEL_WINDOW_S = 24 * 3600.0, 1800.0
CLICK_RATE = 0.1
BEHIND = "srp4ctr_figures_behind_seconds"
_BATCH_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMonitor:
    """A process of a monitor, and what its page shows."""

    process: BaseProcess
    url: str

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has taken."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def page(self) -> dict[str, float]:
        """Return every sample of the page; none while it does not answer."""
        try:
            metrics = read_metrics(self.url)
        except (OSError, ValueError):
            return {}
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in metrics
            for sample in family.samples
        }

    def shows_figures(self) -> bool:
        """Return whether it exports the figures of all partitions."""
        return any(name.startswith(BEHIND) for name in self.page())

    def current_until_s(self) -> float:
        """Return the Unix time until which all labels are in the figures; 0: unknown."""
        behind = [v for name, v in self.page().items() if name.startswith(BEHIND)]
        return time.time() - behind[0] if behind else 0.0


@contextmanager
def label_topic(folder: Path, partitions: int) -> Iterator[KafkaConfig]:
    """Yield a broker with the project's topics; its data are in ``folder``."""
    with ports.reserved_ports(2) as (port, controller_port):
        broker = apache_kafka.start(folder, port, controller_port, tied=True)
    try:
        kafka = KafkaConfig(bootstrap=f"127.0.0.1:{port}", partitions=partitions)
        ensure_topics(kafka)
        yield kafka
    finally:
        processes.stop(broker, folder)


def sources_of(kafka: KafkaConfig, folder: Path) -> MonitorSources:
    """Return the sources of a monitor that keeps its files in ``folder``; no Triton."""
    return MonitorSources(
        kafka=kafka,
        triton_metrics={"triton": "http://127.0.0.1:9/metrics"},
        repository=folder,
        bundles_dir=folder / "bundles",
        label_window_s=LABEL_WINDOW_S,
        feature_check=folder / "feature-check.json",
        shared_folder=folder / "monitors",
        snapshot=folder / "monitor.snapshot",
    )


@contextmanager
def running_monitors(
    sources: MonitorSources, configs: Sequence[MonitorConfig]
) -> Iterator[list[RunningMonitor]]:
    """Run a monitor for each of ``configs``, at free ports; kill what is left at the end.

    Of several each has a snapshot of its own.
    """
    spawn, monitors = multiprocessing.get_context("spawn"), list[RunningMonitor]()
    with ports.reserved_ports(len(configs)) as numbers:
        pass
    try:
        for number, (port, config) in enumerate(zip(numbers, configs, strict=True)):
            own = sources
            if number:
                own = replace(sources, snapshot=sources.repository / f"{port}.snapshot")
            settings = replace(config, port=port, window_s=WINDOW_S)
            process = spawn.Process(target=_run, args=(own, settings), daemon=True)
            process.start()
            url = f"http://127.0.0.1:{port}/metrics"
            monitors.append(RunningMonitor(process=process, url=url))
        yield monitors
    finally:
        for monitor in monitors:
            monitor.process.kill()
            monitor.process.join()


def _run(sources: MonitorSources, config: MonitorConfig) -> None:
    run_monitor(sources, config, threading.Event())


def publish_labels(kafka: KafkaConfig, count: int, since_ms: int, until_ms: int) -> None:
    """Publish labels that are spread evenly over the time, by which they are stamped."""
    asyncio.run(_publish(kafka, count, since_ms, until_ms))


async def _publish(kafka: KafkaConfig, count: int, since_ms: int, until_ms: int) -> None:
    chance = np.random.default_rng(53)
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, max_batch_size=_BATCH_BYTES
    )
    await producer.start()
    batches = [producer.create_batch() for _ in range(kafka.partitions)]
    for number in range(count):
        label = _label(number, since_ms + (until_ms - since_ms) * number // count, chance)
        place = item_key(label.user_id) % kafka.partitions
        value, key = encode_label(label), label.user_id.encode()
        at_ms = label.matured_at
        if batches[place].append(timestamp=at_ms, key=key, value=value) is None:
            await producer.send_batch(batches[place], LABELS_TOPIC, partition=place)
            batches[place] = producer.create_batch()
            batches[place].append(timestamp=at_ms, key=key, value=value)
    for place, batch in enumerate(batches):
        await producer.send_batch(batch, LABELS_TOPIC, partition=place)
    await producer.stop()


def _label(number: int, matured_ms: int, chance: np.random.Generator) -> ImpressionLabel:
    """Return the label of an impression of a slate of ten, of one of two versions."""
    request, position = divmod(number, 10)
    clicked = bool(chance.random() < CLICK_RATE)
    return ImpressionLabel(
        request_id=f"r{matured_ms}-{request}",
        user_id=f"user-{request % 3001}",
        item_id=f"item-{number % 4999}",
        position=position,
        score=float(chance.random()) * 0.3 + 0.001,
        propensity=1.0,
        model_version=f"v{1 + request % 3001 % 2}",
        impression_at=matured_ms - (1000 if clicked else int(LABEL_WINDOW_S * 1000)),
        clicked=clicked,
        within_window=True,
        matured_at=matured_ms,
        revision=2 if clicked else 0,
    )
