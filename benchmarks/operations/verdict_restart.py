"""How long a restarted monitor takes until its figures are current.

Labels whose times span 90 days are in Apache Kafka. A monitor reads those that matter and
is killed; labels are published while it is away. Then the time from the start of its
process is measured until its figures have all of them. ``verdicts`` calls this, too.

    python -m benchmarks.operations.verdict_restart
"""

import asyncio
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer

from benchmarks import parser_of, say
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

LABELS = 5_000_000
SPAN_MS = 90 * 24 * 3_600_000
WINDOW_S, LABEL_WINDOW_S = 24 * 3600.0, 1800.0
WHILE_AWAY = 10_000  # labels
PARTITIONS = 4
CLICK_RATE = 0.1
TIMEOUT_S = 1800.0
_BATCH_BYTES = 1_000_000
_POLL_S = 0.05


def main() -> None:
    """Print one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--labels", type=int, default=LABELS)
    options = parser.parse_args()
    print(json.dumps(measure(options.labels)))


def measure(count: int) -> dict[str, float]:
    """Return the seconds of a first start and of a restart, with ``count`` labels."""
    with tempfile.TemporaryDirectory(prefix="srp4ctr-restart-") as name:
        folder = Path(name)
        with ports.reserved_ports(2) as (port, controller_port):
            broker = apache_kafka.start(folder, port, controller_port, tied=True)
        try:
            kafka = KafkaConfig(bootstrap=f"127.0.0.1:{port}", partitions=PARTITIONS)
            ensure_topics(kafka)
            return _measure(kafka, count, folder)
        finally:
            processes.stop(broker, folder)


def _measure(kafka: KafkaConfig, count: int, folder: Path) -> dict[str, float]:
    end_ms = round(time.time() * 1000) - 60_000
    say(f"publishing {count:,} labels")
    asyncio.run(publish_labels(kafka, count, end_ms - SPAN_MS, end_ms))
    sources = MonitorSources(
        kafka=kafka,
        triton_metrics={"triton": "http://127.0.0.1:9/metrics"},
        repository=folder,
        bundles_dir=folder / "bundles",
        label_window_s=LABEL_WINDOW_S,
        feature_check=folder / "feature-check.json",
        snapshot=folder / "monitor.snapshot",
    )
    say("the first start, without a snapshot")
    first_s = _seconds_until_current(sources)
    say(f"{first_s:.1f} s; {WHILE_AWAY:,} labels come while it is away")
    asyncio.run(publish_labels(kafka, WHILE_AWAY, end_ms, end_ms + 60_000))
    assert sources.snapshot is not None
    return {
        "restart_s": round(_seconds_until_current(sources), 2),
        "first_start_s": round(first_s, 2),
        "snapshot_mb": round(sources.snapshot.stat().st_size / 1e6, 2),
    }


def _seconds_until_current(sources: MonitorSources) -> float:
    """Return how long a new process takes; it is killed when its snapshot is written."""
    began_s = time.time()
    with _running(sources) as url:
        while (until_s := _current_until(url)) < began_s:
            if time.time() > began_s + TIMEOUT_S:
                raise TimeoutError(f"figures are of {until_s}, begun at {began_s}")
            time.sleep(_POLL_S)
        seconds, written = time.time() - began_s, sources.snapshot
        assert written is not None
        now_s = time.time()
        while not written.exists() or written.stat().st_mtime < now_s:
            time.sleep(_POLL_S)
        return seconds


@contextmanager
def _running(sources: MonitorSources) -> Iterator[str]:
    with ports.reserved_ports(1) as (port,):
        pass
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_run, args=(sources, port), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        process.kill()
        process.join()


def _run(sources: MonitorSources, port: int) -> None:
    config = MonitorConfig(port=port, window_s=WINDOW_S, snapshot_interval_s=2.0)
    run_monitor(sources, config, threading.Event())


def _current_until(url: str) -> float:
    """Return the Unix time until which all labels are in the figures; 0 if unknown."""
    try:
        families = {each.name: each.samples for each in read_metrics(url)}
    except (OSError, ValueError):  # it starts
        return 0.0
    samples = families.get("srp4ctr_figures_behind_seconds")
    return time.time() - samples[0].value if samples else 0.0


async def publish_labels(
    kafka: KafkaConfig, count: int, since_ms: int, until_ms: int
) -> None:
    """Publish labels that are spread evenly over the time, by which they are stamped."""
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


if __name__ == "__main__":
    main()
