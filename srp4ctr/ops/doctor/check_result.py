"""What a check of a running deployment found: in words, and whether something is open."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "open", "wrong", "not checked"]
_LOOPBACK = ("127.", "localhost", "::1")
_CONNECT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    state: State
    """``open``: to strangers. ``wrong``: it does not work."""
    found: str
    do: str = ""
    """What to type or set where the state is not ``ok``."""


def ok(check: str, found: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, state="ok", found=found)


def is_open(check: str, found: str, do: str) -> Finding:
    """Return that a stranger gets in."""
    return Finding(check=check, state="open", found=found, do=do)


def wrong(check: str, found: str, do: str) -> Finding:
    """Return that something does not work."""
    return Finding(check=check, state="wrong", found=found, do=do)


def not_checked(check: str, why: str, do: str = "") -> Finding:
    """Return that nothing is known, and why."""
    return Finding(check=check, state="not checked", found=why, do=do)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine's address for itself."""
    return host.startswith(_LOOPBACK)


def reached_at(host: str, port: int) -> list[str]:
    """Return the addresses, other than loopback, at which others may reach the port.

    For a loopback ``host``: those of this machine at which something answers there.
    """
    hosts = own_addresses() if is_loopback(host) else [host]
    return [f"{each}:{port}" for each in hosts if answers(each, port)]


def own_addresses() -> list[str]:
    """Return this machine's addresses in its networks, as far as it knows them."""
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
