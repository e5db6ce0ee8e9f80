"""Runs a worker with a sink in memory: ``python -m tests.streams.worker_process …``."""

import json
import sys
from pathlib import Path

from srp4ctr.embedded.noida_workarounds import pause_after_empty_fetch
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.worker.app import run_worker
from tests.streams.memory_sink import MemorySink


def main(kafka: str, metrics_port: str, log_dir: str) -> None:
    pause_after_empty_fetch()
    run_worker(
        KafkaConfig(**json.loads(kafka)),
        StreamConfig(metrics_port=int(metrics_port)),
        MemorySink(),
        Path(log_dir),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
