"""Starts the embedded online store as a Redis Cluster: three Valkey nodes.

Nothing is replicated: while a node is down, a third of the rows cannot be read. A cluster
for production has a replica of each node, on another machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srp4ctr import processes
from srp4ctr.embedded import broker, ports

NAMES = ("store-1", "store-2", "store-3")
NODES = len(NAMES)
_SLOTS = 16_384
_JOIN_S = 30.0
# With the default of 15 s the others would notice a lost node only after that.
_NODE_TIMEOUT_MS = 3_000


def start(
    folder: Path, free: Sequence[int], *, tied: bool, syncs: bool = True
) -> list[processes.Running]:
    """Start the nodes with their data in ``folder``; return when they answer as one.

    ``free`` are 2 × ``NODES`` ports: the nodes' own, then those of the cluster bus. With
    ``syncs`` an acknowledged write is on disk. A stopped cluster keeps its slots and rows,
    also on other ports.
    """
    from redis import Redis  # not at the top: the command line imports this module

    nodes = []
    for name, port, bus in zip(NAMES, free[:NODES], free[NODES:], strict=True):
        command = broker.store_command(folder / name, port, syncs=syncs)
        command += ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
        # With a node down, the rows of the other two can still be read.
        command += ["--cluster-require-full-coverage", "no"]
        command += ["--cluster-node-timeout", str(_NODE_TIMEOUT_MS)]
        program = processes.Program(
            name=name, command=tuple(command), latency_critical=True
        )
        nodes.append(broker.start_listening(program, folder, port, tied=tied))
    clients = [Redis(host=ports.HOST, port=port) for port in free[:NODES]]
    try:
        _join(clients, free)
        processes.wait_ready(nodes[0], lambda: _is_whole(clients), timeout_s=_JOIN_S)
    finally:
        for client in clients:
            client.close()
    return nodes


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
        each["cluster_state"] == "ok"
        and each["cluster_slots_ok"] == str(_SLOTS)
        and each["cluster_known_nodes"] == str(NODES)
        for each in reports
    )
