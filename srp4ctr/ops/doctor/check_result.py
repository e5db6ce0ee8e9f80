"""The result of one check of a running deployment, and how ports are tried."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

State = Literal["ok", "open", "wrong", "not checked"]
BAD: tuple[State, ...] = ("open", "wrong")
"""States of findings that are to be fixed."""
_LOOPBACK = ("127.", "localhost", "::1")
_CONNECT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: a check, its result, and what to do about it."""

    check: str
    state: State
    """``open``: to unauthenticated clients. ``wrong``: it does not work."""
    found: str
    do: str = ""
    """What to type or set where the state is not ``ok``."""


def _finding(state: State, check: str, found: str, do: str = "") -> Finding:
    return Finding(check=check, state=state, found=found, do=do)


ok = partial(_finding, "ok")
is_open = partial(_finding, "open")
is_wrong = partial(_finding, "wrong")
not_checked = partial(_finding, "not checked")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine's address for itself."""
    return host.startswith(_LOOPBACK)


def reached_at(host: str, port: int) -> list[str]:
    """Return the addresses, other than loopback, at which others can reach the port.

    For a loopback ``host``: this machine's addresses at which something answers.
    """
    hosts = own_addresses() if is_loopback(host) else [host]
    return [f"{each}:{port}" for each in hosts if answers(each, port)]


def own_addresses() -> list[str]:
    """Return this machine's known addresses in its networks."""
    found: set[str] = set()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # of UDP: nothing is sent
        found.add(str(probe.getsockname()[0]))
    with suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
            found.add(str(address[0]))
    return sorted(each for each in found if not is_loopback(each))


def answers(host: str, port: int) -> bool:
    """Return whether something accepts connections at ``host`` and ``port``."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def split(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``."""
    host, _, port = address.strip().rpartition(":")
    return host, int(port)
