"""Reserves free ports of 127.0.0.1, so that no two stacks collide."""

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

# Below Linux's ephemeral range (32768 up): no outgoing connection takes one meanwhile.
_FIRST, _LAST = 20_000, 32_000
HOST = "127.0.0.1"


@contextmanager
def reserved_ports(
    count: int, wanted: Sequence[Sequence[int]] = ()
) -> Iterator[tuple[int, ...]]:
    """Yield ``count`` distinct free ports that no other caller gets before the block ends.

    Each is the first free one of its ``wanted`` ports, else a random one. Start the servers
    inside the block and wait until they listen.
    """
    claims: list[socket.socket] = []
    ports: list[int] = []
    others = iter(random.sample(range(_FIRST, _LAST), _LAST - _FIRST))
    try:
        while len(ports) < count:
            preferred = wanted[len(ports)] if len(ports) < len(wanted) else ()
            for port in chain(preferred, others):
                claim = _claim(port)
                if claim is not None:
                    claims.append(claim)
                    ports.append(port)
                    break
            else:
                raise OSError(f"no {count} free ports in {_FIRST}..{_LAST} on {HOST}")
        yield tuple(ports)
    finally:
        for claim in claims:
            claim.close()


def is_open(port: int) -> bool:
    """Return whether something accepts connections on ``port`` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _claim(port: int) -> socket.socket | None:
    """Hold ``port`` among processes of this project, if it is free; None if it is not.

    The claim is an abstract socket name: the kernel releases it with the process.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0srp4ctr-port-{port}")
        with socket.socket() as probe:
            # As servers do: connections of an ended server stay in TIME_WAIT for a minute.
            # A listener still refuses the bind.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except OSError:
        claim.close()
        return None
    return claim
