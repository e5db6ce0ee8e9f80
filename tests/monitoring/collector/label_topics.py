"""Labels in a topic of a real broker, and the figures of a monitor that runs."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.monitoring.collector.snapshot import LabelPosition
from srp4ctr.monitoring.collector.topic_readers import LabelBatch, ReceivedLabel
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import LABELS_TOPIC
from srp4ctr.streams.state.label_join import ImpressionLabel, encode_label
from tests.monitoring.conftest import MINUTE_MS, START_MS, a_label


def some_labels(count: int, *, since_ms: int = START_MS) -> list[ImpressionLabel]:
    """Return labels of two hours, as they come: of two versions, with corrections."""
    draw, labels = random.Random(53), []
    for number in range(count):
        request = number // 4
        label = a_label(
            f"i{number}",
            request_id=f"r{request}",
            user_id=f"u{draw.randrange(count // 20)}",
            position=number % 4,
            score=draw.choice([None, *[draw.random()] * 9]),
            propensity=draw.choice([1.0, 0.5, None]),
            model_version=draw.choice(["v7", "v8"]),
            experiment=draw.choice([None, "e1"]),
            arm=draw.choice(["v7", "v8"]),
            after_ms=since_ms - START_MS + 120 * MINUTE_MS * number // count,
            clicked=draw.random() < 0.2,
        )
        labels.append(label)
        if draw.random() < 0.1:
            labels.append(label)  # delivered again
        if draw.random() < 0.1 and not label.clicked:
            changes: dict[str, Any] = {"clicked": True, "within_window": False}
            labels.append(msgspec.structs.replace(label, **changes, revision=1))
    return labels


def batches(labels: Sequence[ImpressionLabel], size: int = 20) -> Iterator[LabelBatch]:
    for first in range(0, len(labels), size):
        some = labels[first : first + size]
        received = (
            ReceivedLabel(label=each, partition=first % 3, published_ms=each.matured_at)
            for each in some
        )
        yield LabelBatch(
            labels=tuple(received),
            undecodable=1,
            position=LabelPosition(offsets={0: first + size}, complete_until_ms=1),
        )


@contextmanager
def a_broker(folder: Path) -> Iterator[KafkaConfig]:
    folder.mkdir()
    with ports.reserved_ports(1) as (port,):
        running = broker.start_broker(folder, port, tied=True)
    config = KafkaConfig(bootstrap=f"127.0.0.1:{port}")
    try:
        ensure_topics(config)
        yield config
    finally:
        processes.stop(running, folder)


def publish(
    kafka: KafkaConfig, labels: Sequence[ImpressionLabel], *, published_ms: int = 0
) -> None:
    """Publish ``labels``, a user's to one partition, at ``published_ms`` or now."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for label in labels:
        producer.send(
            LABELS_TOPIC,
            key=label.user_id.encode(),
            value=encode_label(label),
            timestamp_ms=published_ms or None,
        )
    # Counted twice if it is read twice.
    producer.send(LABELS_TOPIC, b"{}", timestamp_ms=published_ms or None)
    producer.flush()
    producer.close()


def figures(url: str) -> dict[str, float]:
    """Return what labels change, but for times and what counts from each start."""
    families = {"srp4ctr_undecodable_labels", "srp4ctr_verdict"}
    prefixes = ("matured", "online", "live", "calibration", "click", "expected", "compared")
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in read_metrics(url)
        if family.name in families
        or family.name.removeprefix("srp4ctr_").startswith(prefixes)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def same(expected: dict[str, float]) -> Any:
    """Equal but for the order of additions: partitions are read in turns."""
    return pytest.approx(expected, rel=1e-12, nan_ok=True)


def value_of(url: str, name: str) -> float | None:
    """Return the value of a metric without labels; None while there is none."""
    try:
        found = [metric for metric in read_metrics(url) if metric.name == name]
    except (OSError, ValueError):
        return None
    return found[0].samples[0].value if found and found[0].samples else None


def wait_until_current(url: str, published_s: float) -> None:
    """Wait until the figures have what was published by ``published_s``."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        behind_s = value_of(url, "srp4ctr_figures_behind_seconds")
        if behind_s is not None and time.time() - behind_s > published_s + 1.5:
            return
        time.sleep(0.1)
    raise AssertionError("the figures did not become current")
