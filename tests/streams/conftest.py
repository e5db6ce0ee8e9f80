"""A fresh embedded broker per test."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded.broker import pause_after_empty_fetch, start_broker
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaConfig]:
    """Yield the address of a broker with our topics and nothing in them."""
    folder = tmp_path / "broker"
    folder.mkdir()
    with reserved_ports(1) as (kafka_port,):
        broker = start_broker(folder, kafka_port, tied=True)
    pause_after_empty_fetch()
    config = KafkaConfig(bootstrap=f"{HOST}:{kafka_port}", partitions=2)
    try:
        ensure_topics(config)
        yield config
    finally:
        processes.stop(broker, folder)
        gc.collect()  # here, where the warning about it is off: see below


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let kafka-python leave a socket behind when it closes (1 run in 3 did).

    Where it is collected, that may be in any later test of this folder.
    """
    category = "pytest.PytestUnraisableExceptionWarning"
    leaves_socket = f"ignore:Exception ignored in. <socket:{category}"
    for item in items:
        is_here = item.path.is_relative_to(Path(__file__).parent)
        if is_here or "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings(leaves_socket))


@pytest.fixture
def config() -> StreamConfig:
    """Return settings that do not make a test wait."""
    return StreamConfig(
        label_window_s=60.0, flush_interval_ms=50, log_flush_interval_s=0.2, metrics_port=0
    )
