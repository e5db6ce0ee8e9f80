"""Assigns free ports of 127.0.0.1, so that no two stacks collide.

A part of a stack gets its well-known port where that is free, else a random one. Worker,
monitor and page start after the stack, so that a bind cannot show whether another stack
needs their ports. They belong to the stack whose broker has Kafka's well-known port; any
other stack gets random ones.
"""

import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.errors import OutageError

HOST = "127.0.0.1"
# Below Linux's ephemeral range (32768 up): no outgoing connection takes one meanwhile.
_FIRST, _LAST = 20_000, 32_000
_RECORD = "ports.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPart:
    """A part of the stack that needs a port."""

    name: str
    """The field of ``Addresses``, if there is one."""
    title: str = ""
    well_known: int = 0
    """0: none; it gets a random port."""
    starts_later: bool = False
    """Another command starts it, after the stack."""


LaterPart = partial(StackPart, starts_later=True)
# In the order of ports.json, which a stack reads again when it next starts.
PARTS = (
    StackPart(name="kafka_port", title="Kafka", well_known=9092),
    StackPart(name="redis_port", title="the store", well_known=6379),
    StackPart(name="triton_grpc_port", title="Triton", well_known=8001),
    StackPart(name="triton_metrics_port", title="Triton's metrics", well_known=8002),
    LaterPart(name="worker_metrics_port", title="the worker's metrics", well_known=9101),
    LaterPart(name="monitor_port", title="the monitor", well_known=9102),
    LaterPart(name="caller_metrics_port"),
    StackPart(name="prometheus_port", title="Prometheus", well_known=9090),
    StackPart(name="controller_port"),
    LaterPart(name="page_port", title="the page", well_known=9105),
    *(StackPart(name=f"cluster_port_{number}") for number in range(5)),
    LaterPart(name="intake_port", title="the HTTP intake", well_known=8088),
    LaterPart(name="intake_metrics_port", title="the intake's metrics", well_known=9104),
)


@contextmanager
def assigned_ports(
    folder: Path, *, prefers_well_known: bool, keeps_former: bool
) -> Iterator[Mapping[str, int]]:
    """Yield a port for each name of ``PARTS``; servers start within the block.

    With ``keeps_former`` the folder's former ports come first, so that clients of a
    restarted stack find it again; else the well-known ones, unless a worker or monitor of
    the stopped stack still runs.
    """
    record = folder / _RECORD
    listed = read_json(record, list[int]) or []
    former = dict(zip((part.name for part in PARTS), listed, strict=False))
    later = [part for part in PARTS if part.starts_later]
    keeps_former |= any(is_open(former.get(part.name, 0)) for part in later)
    if any(_belongs_to_another(part, former) for part in later):
        prefers_well_known = False  # its worker would read this stack's topics

    def wanted(part: StackPart, has_well_known: bool = True) -> list[int]:
        known = [part.well_known] if part.well_known and prefers_well_known else []
        before = [former[part.name]] if part.name in former else []
        found = before + known if keeps_former else known + before
        withheld = part.starts_later and not has_well_known
        return [port for port in found if not (withheld and port == part.well_known)]

    kafka, *others = PARTS
    with reserved_ports(1, [wanted(kafka)]) as (kafka_port,):
        is_first = kafka_port == kafka.well_known
        preferred = [wanted(part, is_first) for part in others]
        with reserved_ports(len(others), preferred) as free:
            names = (part.name for part in PARTS)
            chosen = dict(zip(names, (kafka_port, *free), strict=True))
            for part in later:  # a worker that outlived the stack still listens there
                port = former.get(part.name, 0)
                is_ours = is_first or port != part.well_known
                if port and is_ours and is_open(port):
                    chosen[part.name] = port
            write_json(record, list(chosen.values()))
            yield chosen


@contextmanager
def reserved_ports(
    count: int, wanted: Sequence[Sequence[int]] = ()
) -> Iterator[tuple[int, ...]]:
    """Yield ``count`` distinct free ports that no other caller gets before the block ends.

    Each is the first free one of its ``wanted`` ports, else a random one. Start the servers
    inside the block and wait until they listen.
    """
    ports: list[int] = []
    others = iter(random.sample(range(_FIRST, _LAST), _LAST - _FIRST))
    with ExitStack() as claims:
        for preferred in islice(chain(wanted, repeat(())), count):
            for port in chain(preferred, others):
                if (claim := _claim(port)) is not None:
                    claims.enter_context(claim)
                    ports.append(port)
                    break
            else:
                raise OutageError(f"no {count} free ports in {_FIRST}..{_LAST} on {HOST}")
        yield tuple(ports)


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


def _belongs_to_another(part: StackPart, former: Mapping[str, int]) -> bool:
    """Return whether another stack's ``part`` listens on the well-known port."""
    port = part.well_known
    return bool(port) and former.get(part.name) != port and is_open(port)
