import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.fault_injection.topic_reading import progress_of
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC
from srp4ctr.streams.worker.app import group_ids
from tests.builders import a_behavior, an_item

pytestmark = pytest.mark.kafka

COUNTED = (
    'srp4ctr_events_total{type="behavior"} 1.0',
    'srp4ctr_events_rejected_total{reason="broken_json"} 1.0',
    "srp4ctr_item_updates_total 1.0",
    'srp4ctr_log_rows_total{topic="items"} 1.0',
)


def scraped(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def started(kafka: KafkaConfig, port: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.streams.worker_process"]
    command += [json.dumps(asdict(kafka)), str(port), str(folder / "log")]
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


def wait_until_counted(port: int, counted: Sequence[str] = COUNTED) -> None:
    deadline = time.monotonic() + 60
    while not all(line in scraped(port) for line in counted):
        assert time.monotonic() < deadline, scraped(port)
        time.sleep(0.2)


def test_a_worker_counts_what_it_stores_and_leaves_at_once_when_told(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    now_ms = time.time_ns() // 1_000_000
    with EventPublisher(kafka) as publisher:
        publisher.publish(a_behavior(at_ms=now_ms))
        publisher.publish(an_item(at_ms=now_ms))
        publisher.publish_raw(b"{")
    with reserved_ports(1) as (port,):
        pass
    worker = started(kafka, port, tmp_path)
    try:
        wait_until_counted(port)
        told_at = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
        assert time.monotonic() - told_at < 15  # 1–5 s measured; the machine may be busy
    finally:
        worker.kill()
        worker.wait()
    sequences, log, items = group_ids(StreamConfig())
    for group, topic, records in (
        (sequences, BEHAVIOR_EVENTS_TOPIC, 2),
        (log, BEHAVIOR_EVENTS_TOPIC, 2),
        (items, ITEMS_TOPIC, 1),
    ):
        with progress_of(kafka, group, topic) as committed:
            assert committed() == records, group
