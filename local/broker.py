"""The embedded broker and online store: one small binary speaks Kafka and Redis.

Its data is disposable (a killed broker loses its last half second). Where that will not
do, ``apache_kafka.py`` starts the real broker, and this binary serves Redis alone.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from local import ports, processes

_PORT_IN_USE_RETRY_S = 10.0  # a restart within 1–2 s fails with "port already in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedStore:
    """A running noida-db: the Redis port, and Kafka's if it serves that too."""

    running: processes.Running
    redis_port: int
    kafka_port: int | None


def start_noida(
    folder: Path, *, redis_port: int, kafka_port: int | None = None, tied: bool
) -> EmbeddedStore:
    """Start the binary with its data in ``folder/noida`` and return when it answers.

    Without ``kafka_port`` it serves Redis only.
    """
    program = processes.Program(
        name="store" if kafka_port is None else "broker",
        command=_command(folder / "noida", redis_port, kafka_port),
    )
    wanted = [port for port in (redis_port, kafka_port) if port is not None]
    deadline = time.monotonic() + _PORT_IN_USE_RETRY_S
    while True:
        running = processes.start(program, folder, tied=tied)
        try:
            processes.wait_ready(running, lambda: _answers(wanted))
            break
        except processes.ProcessError as error:
            processes.stop(running, folder)
            if "port already in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    return EmbeddedStore(running=running, redis_port=redis_port, kafka_port=kafka_port)


def _command(data: Path, redis_port: int, kafka_port: int | None) -> tuple[str, ...]:
    """Return the command of the binary itself: a signal to its wrapper orphans it."""
    spec = find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise ValueError(
            "the embedded broker is not installed: pip install 'srp4ctr[local]'"
        )
    binary = Path(spec.origin).parent / "noida-db"
    services = "redis" if kafka_port is None else "redis,kafka"
    command = [str(binary), "start", "--data-dir", str(data), "--only", services]
    command += ["--redis-port", str(redis_port)]
    if kafka_port is not None:
        command += ["--kafka-port", str(kafka_port)]
    return tuple(command)


def _answers(wanted: Sequence[int]) -> bool:
    """Return whether all ports accept and Redis says PONG (it loads its data first)."""
    if not all(ports.is_open(port) for port in wanted):
        return False
    try:
        with socket.create_connection((ports.HOST, wanted[0]), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
