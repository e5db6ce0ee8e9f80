"""Assigns a port to each part of a stack: well-known where free, else random.

Worker, monitor and page start after the stack, so that a bind cannot show whether another
stack needs their ports. They belong to the stack whose broker has Kafka's well-known port;
any other stack gets random ones.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from srp4ctr.embedded import ports
from srp4ctr.embedded.addresses import Addresses

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


# In the order of ports.json, also of earlier versions: append only.
PARTS = (
    StackPart(name="kafka_port", title="Kafka", well_known=9092),
    StackPart(name="redis_port", title="the store", well_known=6379),
    StackPart(name="triton_grpc_port", title="Triton", well_known=8001),
    StackPart(name="triton_metrics_port", title="Triton's metrics", well_known=8002),
    StackPart(
        name="worker_metrics_port",
        title="the worker's metrics",
        well_known=9101,
        starts_later=True,
    ),
    StackPart(name="monitor_port", title="the monitor", well_known=9102, starts_later=True),
    StackPart(name="caller_metrics_port", starts_later=True),
    StackPart(name="prometheus_port", title="Prometheus", well_known=9090),
    StackPart(name="controller_port"),
    StackPart(name="page_port", title="the page", well_known=9105, starts_later=True),
    *(StackPart(name=f"cluster_port_{number}") for number in range(5)),
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
    listed = json.loads(record.read_text()) if record.is_file() else []
    former = dict(zip((part.name for part in PARTS), listed, strict=False))
    later = [part for part in PARTS if part.starts_later]
    keeps_former |= any(ports.is_open(former.get(part.name, 0)) for part in later)
    if any(_belongs_to_another(part, former) for part in later):
        prefers_well_known = False  # its worker would read this stack's topics

    def wanted(part: StackPart, has_well_known: bool = True) -> list[int]:
        known = [part.well_known] if part.well_known and prefers_well_known else []
        before = [former[part.name]] if part.name in former else []
        found = before + known if keeps_former else known + before
        withheld = part.starts_later and not has_well_known
        return [port for port in found if not (withheld and port == part.well_known)]

    kafka, *others = PARTS
    with ports.reserved_ports(1, [wanted(kafka)]) as (kafka_port,):
        is_first = kafka_port == kafka.well_known
        preferred = [wanted(part, is_first) for part in others]
        with ports.reserved_ports(len(others), preferred) as free:
            names = (part.name for part in PARTS)
            chosen = dict(zip(names, (kafka_port, *free), strict=True))
            for part in later:  # a worker that outlived the stack still listens there
                port = former.get(part.name, 0)
                is_ours = is_first or port != part.well_known
                if port and is_ours and ports.is_open(port):
                    chosen[part.name] = port
            record.write_text(json.dumps(list(chosen.values())))
            yield chosen


def moved_sentence(addresses: Addresses) -> str:
    """Return one line that names the ports that are not the well-known ones; "" if none."""
    found = {part: getattr(addresses, part.name, 0) for part in PARTS if part.well_known}
    moved = [
        f"{part.title} {part.well_known} → {port}"
        for part, port in found.items()
        if port not in (0, part.well_known)
    ]
    return f"other ports than the well-known ones: {', '.join(moved)}" if moved else ""


def _belongs_to_another(part: StackPart, former: Mapping[str, int]) -> bool:
    """Return whether another stack's ``part`` listens on the well-known port."""
    port = part.well_known
    return bool(port) and former.get(part.name) != port and ports.is_open(port)
