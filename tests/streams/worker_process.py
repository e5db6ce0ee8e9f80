"""Runs a worker with a sink in memory: ``python -m tests.streams.worker_process …``."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from srp4ctr import logs
from srp4ctr.embedded.broker import pause_after_empty_fetch
from srp4ctr.embedded.ports import HOST
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.worker.app import run_worker
from tests.streams.memory_sink import MemorySink

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


class BrokenSink(MemorySink):
    """A store with a bug: it reads no user, and takes no item."""

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        raise TypeError("a bug")

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        raise TypeError("a bug")


def start(
    kafka: KafkaConfig, port: int, folder: Path, sink: type[MemorySink] = MemorySink
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.streams.worker_process"]
    command += [json.dumps(asdict(kafka)), str(port), str(folder / "log"), sink.__name__]
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


def wait_until_counted(port: int, counted: Sequence[str] = COUNTED) -> None:
    deadline = time.monotonic() + 60
    while not all(line in scraped(port) for line in counted):
        assert time.monotonic() < deadline, scraped(port)
        time.sleep(0.2)


def main(kafka: str, metrics_port: str, log_dir: str, sink: str) -> None:
    logs.configure("stream", logs.LogConfig())
    pause_after_empty_fetch()
    run_worker(
        KafkaConfig(**json.loads(kafka)),
        StreamConfig(metrics_port=int(metrics_port)),
        {each.__name__: each for each in (MemorySink, BrokenSink)}[sink](),
        log_dir,
        Path(log_dir),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
