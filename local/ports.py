"""Free ports of 127.0.0.1 → the addresses of a stack that collides with no other one."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Below Linux's ephemeral range (32768 up): no outgoing connection takes one meanwhile.
_FIRST, _LAST = 20_000, 32_000
HOST = "127.0.0.1"


@contextmanager
def reserved_ports(count: int) -> Iterator[tuple[int, ...]]:
    """Yield ``count`` distinct free ports that no other caller gets before the block ends.

    Start and await the servers inside the block: from then on the ports are theirs.
    """
    claims: list[socket.socket] = []
    ports: list[int] = []
    try:
        for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
            if len(ports) == count:
                break
            claim = _claim(port)
            if claim is not None:
                claims.append(claim)
                ports.append(port)
        if len(ports) < count:
            raise OSError(f"fewer than {count} free ports in {_FIRST}..{_LAST} on {HOST}")
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

    The claim is an abstract socket name: it vanishes with the process, even a killed one.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0srp4ctr-port-{port}")
        with socket.socket() as probe:
            probe.bind((HOST, port))
    except OSError:
        claim.close()
        return None
    return claim
