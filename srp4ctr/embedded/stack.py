"""A folder → a running stack: broker, online store, tritonserver and Prometheus.

Prometheus only where it is installed. ``up`` writes the addresses to
``<data_dir>/stack.toml``, in the sections of the settings, so that every other command
finds them. Two stacks in two folders do not collide: the
first gets the well-known ports, the second random ones.
"""

import fcntl
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import (
    apache_kafka,
    broker,
    port_assignment,
    prometheus,
    stack_settings,
    store_cluster,
    triton_install,
    triton_server,
)
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.config import LocalConfig
from srp4ctr.ops.triton import watchdog

STACK_FILE = "stack.toml"
_RECORD = "stack.json"
_CONTROL_KEY = "control.key"
# Stopped in the reverse order; other processes of the folder (a worker) stop first.
_ORDER = ("broker", "kafka", "store", "triton", "watch", "prometheus")
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """Which parts of a folder's stack run."""

    addresses: Addresses | None
    """None if no stack was started here."""
    running: tuple[processes.Running, ...]
    ended: tuple[str, ...]
    """Parts that should run and do not."""


def up(
    local: LocalConfig, *, tied: bool = False, http_port: int = 0, note: Note | None = None
) -> Addresses:
    """Start the stack of ``local.data_dir`` and return its addresses once it answers.

    A tied stack ends with this process; any other runs on until ``down``. Where every part
    of an untied stack runs already, its addresses are returned. Raises ValueError where
    a tied stack would take over a running one.
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
    moved = port_assignment.moved_sentence(addresses)
    if moved and local.ports == "well-known":
        say(moved)
    return addresses


def down(local: LocalConfig) -> list[str]:
    """Stop every process of the folder and return the names; the data stays."""
    folder = Path(local.data_dir).resolve()
    if not folder.is_dir():
        return []
    with _locked(folder):
        stopped = _stop_all(folder)
        (folder / STACK_FILE).unlink(missing_ok=True)
        (folder / _RECORD).unlink(missing_ok=True)
    return stopped


def status(local: LocalConfig) -> StackStatus:
    """Return which parts run in the folder."""
    return _status(Path(local.data_dir).resolve())


def _start_all(
    folder: Path,
    local: LocalConfig,
    serving: triton_install.ServingEnv,
    tied: bool,
    http_port: int,
) -> Addresses:
    binary = prometheus.find_prometheus()
    with port_assignment.assigned_ports(
        folder,
        prefers_well_known=local.ports == "well-known",
        # `down` removes the record: without it, no client relies on the former ports.
        keeps_former=(folder / _RECORD).is_file(),
    ) as free:
        addresses = _addresses(folder, local, free, has_prometheus=bool(binary))
        _start_broker(folder, addresses, free["controller_port"], tied)
        plan = _plan(folder, addresses, http_port)
        server = triton_server.start(serving, plan, folder, tied=tied)
        watchdog.start(server, plan, folder, tied=tied)
        if binary:
            targets, port = addresses.scraped(), addresses.prometheus_port
            prometheus.start(binary, targets, port, folder, tied=tied)
    return addresses


def _addresses(
    folder: Path, local: LocalConfig, free: Mapping[str, int], *, has_prometheus: bool
) -> Addresses:
    nodes = tuple(free[f"cluster_port_{number}"] for number in range(5))
    return Addresses(
        data_dir=str(folder),
        broker=local.broker,
        kafka_port=free["kafka_port"],
        redis_port=free["redis_port"],
        triton_grpc_port=free["triton_grpc_port"],
        triton_metrics_port=free["triton_metrics_port"],
        worker_metrics_port=free["worker_metrics_port"],
        monitor_port=free["monitor_port"],
        caller_metrics_port=free["caller_metrics_port"],
        prometheus_port=free["prometheus_port"] if has_prometheus else 0,
        page_port=free["page_port"],
        cluster_ports=nodes if local.store == "cluster" else (),
    )


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


def _start_broker(
    folder: Path, addresses: Addresses, controller_port: int, tied: bool
) -> None:
    """Start the store, and the embedded broker or Apache Kafka."""
    is_disposable = addresses.broker == "noida"  # it loses its last half second when killed
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
        name = running.name.partition("-")[0]  # store-2 belongs to the store
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
    """Return the folder's key; it never changes, so that running services may promote."""
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
