"""One folder → a running stack: broker, online store, tritonserver, Prometheus if there.

``up`` writes the addresses to ``<data_dir>/stack.toml``, in the sections of the settings,
so that every other command finds them. Two stacks in two folders do not collide.
"""

import fcntl
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import (
    apache_kafka,
    broker,
    ports,
    prometheus,
    stack_settings,
    store_cluster,
    triton_install,
    triton_server,
)
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.config import LocalConfig
from srp4ctr.ops.triton import triton_watch

STACK_FILE = "stack.toml"
_RECORD = "stack.json"
_PORTS = "ports.json"
_CONTROL_KEY = "control.key"
_OF_OTHERS = (4, 5, 6, 9)  # the ports of worker, monitor, caller and page
# Stopped in the reverse order; what others started in the folder (a worker) goes first.
_ORDER = ("broker", "kafka", "store", "triton", "watch", "prometheus")
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """What of a folder's stack runs."""

    addresses: Addresses | None
    """None if no stack was started here."""
    running: tuple[processes.Running, ...]
    ended: tuple[str, ...]
    """Parts that should run and do not."""


def up(
    local: LocalConfig, *, tied: bool = False, http_port: int = 0, note: Note | None = None
) -> Addresses:
    """Start the stack of ``local.data_dir`` and return its addresses once it answers.

    A tied stack ends with this process; another runs on after it, until ``down``. Where
    an untied stack is whole already, that one is returned. Raises ValueError where a
    tied one would take over a running stack.
    """
    folder = Path(local.data_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    say = note or (lambda _: None)
    with _locked(folder):
        before = _status(folder)
        if before.running and tied:
            raise ValueError(
                f"a stack runs in {folder} already: stop it (srp4ctr stack down) or "
                "choose another data folder"
            )
        if before.addresses and before.running and not before.ended:
            return before.addresses
        _stop_all(folder)
        serving = triton_install.build(Path(local.serving_dir), say)
        try:
            addresses = _start_all(folder, local, serving, tied, http_port)
        except BaseException:
            _stop_all(folder)
            raise
        _write_addresses(folder, addresses)
    return addresses


def down(local: LocalConfig) -> list[str]:
    """Stop everything that runs in the folder and return the names; the data stays."""
    folder = Path(local.data_dir).resolve()
    if not folder.is_dir():
        return []
    with _locked(folder):
        stopped = _stop_all(folder)
        (folder / STACK_FILE).unlink(missing_ok=True)
        (folder / _RECORD).unlink(missing_ok=True)
    return stopped


def status(local: LocalConfig) -> StackStatus:
    """Return what runs in the folder."""
    return _status(Path(local.data_dir).resolve())


def _start_all(
    folder: Path,
    local: LocalConfig,
    serving: triton_install.ServingEnv,
    tied: bool,
    http_port: int,
) -> Addresses:
    binary = prometheus.find_prometheus()
    with _ports_as_before(folder) as free:
        addresses = Addresses(
            data_dir=str(folder),
            broker=local.broker,
            kafka_port=free[0],
            redis_port=free[1],
            triton_grpc_port=free[2],
            triton_metrics_port=free[3],
            worker_metrics_port=free[4],
            monitor_port=free[5],
            caller_metrics_port=free[6],
            prometheus_port=free[7] if binary else 0,
            page_port=free[9],
            cluster_ports=tuple(free[10:15]) if local.store == "cluster" else (),
        )
        _start_broker(folder, addresses, free[8], tied)
        plan = _plan(folder, addresses, http_port)
        server = triton_server.start(serving, plan, folder, tied=tied)
        triton_watch.start(server, plan, folder, tied=tied)
        if binary:
            targets, port = addresses.scraped(), addresses.prometheus_port
            prometheus.start(binary, targets, port, folder, tied=tied)
    return addresses


def _plan(folder: Path, addresses: Addresses, http_port: int) -> triton_server.ServerPlan:
    store = addresses.settings()["features"]
    return triton_server.ServerPlan(
        repository=folder / "triton",
        redis=str(store["redis"]),
        redis_cluster=bool(store["redis_cluster"]),
        registry=str(store["registry"]),
        grpc_port=addresses.triton_grpc_port,
        metrics_port=addresses.triton_metrics_port,
        control_key=_control_key(folder),
        http_port=http_port,
    )


@contextmanager
def _ports_as_before(folder: Path) -> Iterator[Sequence[int]]:
    """Yield 15 ports, the former ones where they are free: who runs on finds us again."""
    record = folder / _PORTS
    before = json.loads(record.read_text()) if record.is_file() else []
    with ports.reserved_ports(15, before) as free:
        chosen = list(free)
        for place in _OF_OTHERS:  # a worker that outlived the stack holds its own
            if place < len(before) and ports.is_open(before[place]):
                chosen[place] = before[place]
        record.write_text(json.dumps(chosen))
        yield chosen


def _start_broker(
    folder: Path, addresses: Addresses, controller_port: int, tied: bool
) -> None:
    """Start the embedded store, and the embedded broker or Apache Kafka beside it."""
    is_disposable = addresses.broker == "noida"  # it loses half a second when killed
    store_port = addresses.redis_port
    if addresses.cluster_ports:
        nodes = (store_port, *addresses.cluster_ports)
        store_cluster.start(folder, nodes, tied=tied, syncs=not is_disposable)
    else:
        broker.start_store(folder, store_port, tied=tied, syncs=not is_disposable)
    if is_disposable:
        broker.start_broker(folder, addresses.kafka_port, tied=tied)
    else:
        apache_kafka.start(folder, addresses.kafka_port, controller_port, tied=tied)


def _status(folder: Path) -> StackStatus:
    try:
        kept = json.loads((folder / _RECORD).read_text())
        cluster_ports = tuple(kept.pop("cluster_ports", ()))
        addresses = Addresses(**kept, cluster_ports=cluster_ports)
    except (OSError, ValueError, TypeError):
        addresses = None
    running = tuple(processes.find(folder))
    names = {each.name for each in running}
    expected = _expected(addresses) if addresses else ()
    ended = tuple(name for name in expected if name not in names)
    return StackStatus(addresses=addresses, running=running, ended=ended)


def _expected(addresses: Addresses) -> tuple[str, ...]:
    messages = "broker" if addresses.broker == "noida" else "kafka"
    watchers = ("prometheus",) if addresses.prometheus_port else ()
    is_cluster = bool(addresses.cluster_ports)
    stores = store_cluster.NAMES if is_cluster else ("store",)
    return (*stores, messages, "triton", "watch", *watchers)


def _stop_all(folder: Path) -> list[str]:
    def rank(running: processes.Running) -> int:
        name = running.name.partition("-")[0]  # store-2 is of the store
        return _ORDER.index(name) if name in _ORDER else len(_ORDER)

    running = sorted(processes.find(folder), key=rank, reverse=True)
    for each in running:
        processes.stop(each, folder)
    triton_server.clear_shared_memory(folder)
    return [each.name for each in running]


def _write_addresses(folder: Path, addresses: Addresses) -> None:
    (folder / _RECORD).write_text(json.dumps(asdict(addresses), indent=2))
    partial = folder / f"{STACK_FILE}.part"
    partial.touch(mode=0o600)
    partial.write_text(stack_settings.written(addresses.settings(), folder / _CONTROL_KEY))
    partial.replace(folder / STACK_FILE)


def _control_key(folder: Path) -> str:
    """Return the folder's own key, for good: who runs on may still promote."""
    path = folder / _CONTROL_KEY
    if not path.is_file() or not path.read_text():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16))
    return path.read_text()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
