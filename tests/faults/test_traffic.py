"""Traffic ends where its broker is lost, so that a run that has failed says so.

In a process of its own: kafka-python leaves sockets behind when its broker goes away.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kafka.errors import KafkaTimeoutError

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.testing.fault_injection.traffic import Shape, Traffic

ENDED = "ended: "


def test_traffic_without_its_broker_ends_with_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.test_traffic", str(tmp_path)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert result.stdout.startswith(f"{ENDED}KafkaTimeoutError")


def lose_the_broker(folder: Path) -> None:
    """Print how traffic ends whose broker was killed."""
    with ports.reserved_ports(1) as (port,):
        running = broker.start_broker(folder, port, tied=True)
        kafka = KafkaConfig(bootstrap=f"{ports.HOST}:{port}")
        ensure_topics(kafka)
        traffic = Traffic(kafka, Shape(), patience_s=1.0)
        traffic.start()
        while not any(sent.is_done for _, sent in [*traffic.published]):
            processes.check_alive(running)
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGKILL)
        processes.stop(running, folder)
        traffic.burst(1000)
        while len(traffic.published) < 1000:
            time.sleep(0.05)
        try:
            traffic.end()
        except KafkaTimeoutError as error:
            sys.stdout.write(f"{ENDED}{type(error).__name__}")


if __name__ == "__main__":
    lose_the_broker(Path(sys.argv[1]))
