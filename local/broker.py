"""The embedded broker and online store: two processes of one small binary.

Its data is disposable (a killed broker loses its last half second). Where that will not
do, ``apache_kafka.py`` starts the real broker, and this binary serves Redis alone.
"""

import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from local import ports, processes

_PORT_IN_USE_RETRY_S = 10.0  # a restart within 1–2 s fails with "port already in use"


def start_store(folder: Path, port: int, *, tied: bool) -> processes.Running:
    """Start the online store with its data in ``folder/store``; return when it answers."""
    return _start("store", "redis", folder, port, tied)


def start_broker(folder: Path, port: int, *, tied: bool) -> processes.Running:
    """Start the broker with its data in ``folder/broker``; return when it answers.

    Apart from the store: writing its topics to disk held up the store's reads when one
    process served both (the 99th percentile of a request was 95 ms).
    """
    return _start("broker", "kafka", folder, port, tied)


def _start(
    name: str, service: str, folder: Path, port: int, tied: bool
) -> processes.Running:
    command = (_binary(), "start", "--data-dir", str(folder / name), "--only", service)
    port_flag = (f"--{service}-port", str(port))
    program = processes.Program(name=name, command=(*command, *port_flag))
    is_ready = _says_pong if service == "redis" else ports.is_open
    deadline = time.monotonic() + _PORT_IN_USE_RETRY_S
    while True:
        running = processes.start(program, folder, tied=tied)
        try:
            processes.wait_ready(running, lambda: is_ready(port))
        except processes.ProcessError as error:
            processes.stop(running, folder)
            if "port already in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return running


def forget(bootstrap: str, topics: Sequence[str]) -> int:
    """Let the *embedded* broker drop what ``topics`` hold now, and return how many records.

    It keeps all topics in one file that it writes anew after every change: with 200,000
    records 39 % of a core, without them 4 % (measured), at the expense of whoever serves
    beside it. Only for records that every reader has read and the raw log holds.
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


def _binary() -> str:
    """Return the binary itself: a signal to its wrapper would orphan it."""
    spec = find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise ValueError(
            "the embedded broker is not installed: pip install 'srp4ctr[local]'"
        )
    return str(Path(spec.origin).parent / "noida-db")


def _says_pong(port: int) -> bool:
    """Return whether Redis answers: it loads its data first."""
    try:
        with socket.create_connection((ports.HOST, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
