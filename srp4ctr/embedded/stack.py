"""A folder → a running stack: broker, online store, tritonserver and Prometheus.

Prometheus starts only where it is installed. ``up`` writes the addresses to
``<data_dir>/stack.toml``, in the sections of the settings, so that every other command
finds them. Two stacks in two folders do not collide: the first gets the well-known ports,
the second random ones.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from srp4ctr import processes
from srp4ctr.atomic_files import read_json, replace_text, write_json
from srp4ctr.embedded import (
    apache_kafka,
    broker,
    ports,
    prometheus,
    triton_install,
    triton_server,
)
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.config import STACK_FILE, EmbeddedConfig
from srp4ctr.errors import MistakeError
from srp4ctr.ops.triton import supervisor

_RECORD = "stack.json"
_CONTROL_KEY = "control.key"
_LOCK = "stack.lock"
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

    def snippets(self) -> list[str]:
        """Return lines to paste for each running part; none where no stack runs."""
        names = [each.name for each in self.running]
        return list(self.addresses.snippets(names)) if self.addresses else []


def up(
    config: EmbeddedConfig,
    *,
    tied: bool = False,
    http_port: int = 0,
    note: Note | None = None,
) -> Addresses:
    """Start the stack of ``embedded.data_dir`` and return its addresses once it answers.

    A tied stack ends with this process; any other runs on until ``down``. Where every part
    of an untied stack runs already, its addresses are returned. Raises ``MistakeError``
    where a tied stack would take over a running one, or a folder is none for Triton.
    """
    folder = Path(config.data_dir).resolve()
    for each in (folder, Path(config.serving_dir).resolve()):
        triton_server.check_folder(each)
    report = note or (lambda _: None)
    with processes.locked(folder / _LOCK):
        before = _status(folder)
        if before.running and tied:
            raise MistakeError(
                f"a stack runs in {folder} already: stop it (srp4ctr stack down) or "
                "choose another data folder"
            )
        if before.addresses and before.running and not before.ended:
            for sentence in _ignored(before.addresses, config, http_port):
                report(sentence)
            return before.addresses
        _stop_all(folder)
        serving = triton_install.build(Path(config.serving_dir), report)
        try:
            addresses = _start_all(folder, config, serving, tied, http_port)
        except BaseException:
            _stop_all(folder)
            raise
        _write_addresses(folder, addresses)
    moved = addresses.moved_sentence()
    if moved and config.ports == "well-known":
        report(moved)
    return addresses


def down(config: EmbeddedConfig) -> list[str]:
    """Stop every process of the folder and return the names; the data stays."""
    folder = Path(config.data_dir).resolve()
    if not folder.is_dir():
        return []
    with processes.locked(folder / _LOCK):
        stopped = _stop_all(folder)
        (folder / STACK_FILE).unlink(missing_ok=True)
        (folder / _RECORD).unlink(missing_ok=True)
    return stopped


def status(config: EmbeddedConfig) -> StackStatus:
    """Return which parts run in the folder."""
    return _status(Path(config.data_dir).resolve())


def _start_all(
    folder: Path,
    config: EmbeddedConfig,
    serving: triton_install.ServingEnv,
    tied: bool,
    http_port: int,
) -> Addresses:
    binary = prometheus.find_prometheus()
    with ports.assigned_ports(
        folder,
        prefers_well_known=config.ports == "well-known",
        # `down` removes the record: without it, no client relies on the former ports.
        keeps_former=(folder / _RECORD).is_file(),
    ) as free:
        addresses = _addresses(folder, config, free, has_prometheus=bool(binary))
        addresses = replace(addresses, triton_http_port=http_port)
        _start_broker(folder, addresses, free["controller_port"], tied)
        store = addresses.settings()["features"]
        plan = triton_server.ServerPlan(
            repository=folder / "triton",
            redis=str(store["redis"]),
            redis_cluster=bool(store["redis_cluster"]),
            registry=str(store["registry"]),
            grpc_port=addresses.triton_grpc_port,
            metrics_port=addresses.triton_metrics_port,
            control_key=_control_key(folder),
            http_port=http_port,
        )
        server = triton_server.start(serving, plan, folder, tied=tied)
        supervisor.start(server, plan, folder, tied=tied)
        if binary:
            targets, port = addresses.scraped(), addresses.prometheus_port
            prometheus.start(binary, targets, port, folder, tied=tied)
    return addresses


def _ignored(running: Addresses, config: EmbeddedConfig, http_port: int) -> Iterator[str]:
    """Yield a sentence for each setting that the stack was not started with.

    Only of settings that differ from the default: an option of the first start is not
    repeated.
    """
    usual, store = EmbeddedConfig(), "cluster" if running.cluster_ports else "single"
    for name, wanted, default, found in (
        ("triton.http_port", http_port, 0, running.triton_http_port),
        ("embedded.broker", config.broker, usual.broker, running.broker),
        ("embedded.store", config.store, usual.store, store),
    ):
        if wanted not in (default, found):
            yield (
                f"{name} = {wanted} changes nothing while the stack runs, which was "
                f"started with {found}: `srp4ctr stack down`, then `up`"
            )


def _addresses(
    folder: Path, config: EmbeddedConfig, free: Mapping[str, int], *, has_prometheus: bool
) -> Addresses:
    chosen = {part.name: free[part.name] for part in fields(Addresses) if part.name in free}
    if not has_prometheus:
        chosen["prometheus_port"] = 0
    nodes = tuple(port for name, port in free.items() if name.startswith("cluster_port_"))
    return Addresses(
        data_dir=str(folder),
        broker=config.broker,
        cluster_ports=nodes if config.store == "cluster" else (),
        **chosen,
    )


def _start_broker(
    folder: Path, addresses: Addresses, controller_port: int, tied: bool
) -> None:
    """Start the store, and the embedded broker or Apache Kafka."""
    is_disposable = addresses.broker == "noida"  # it loses its last half second when killed
    store_port = addresses.redis_port
    if addresses.cluster_ports:
        nodes = (store_port, *addresses.cluster_ports)
        broker.start_cluster(folder, nodes, tied=tied, syncs=not is_disposable)
    else:
        broker.start_store(folder, store_port, tied=tied, syncs=not is_disposable)
    if is_disposable:
        broker.start_broker(folder, addresses.kafka_port, tied=tied)
    else:
        apache_kafka.start(folder, addresses.kafka_port, controller_port, tied=tied)


def _status(folder: Path) -> StackStatus:
    addresses = read_json(folder / _RECORD, Addresses)
    running = tuple(processes.find(folder))
    names = {each.name for each in running}
    expected = _expected(addresses) if addresses else ()
    ended = tuple(name for name in expected if name not in names)
    return StackStatus(addresses=addresses, running=running, ended=ended)


def _expected(addresses: Addresses) -> tuple[str, ...]:
    broker_name = "broker" if addresses.broker == "noida" else "kafka"
    monitors = ("prometheus",) if addresses.prometheus_port else ()
    stores = broker.CLUSTER if addresses.cluster_ports else ("store",)
    return (*stores, broker_name, "triton", "watch", *monitors)


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
    write_json(folder / _RECORD, addresses)
    replace_text(folder / STACK_FILE, addresses.stack_toml(folder / _CONTROL_KEY))
    (folder / STACK_FILE).chmod(0o600)


def _control_key(folder: Path) -> str:
    """Return the folder's key; it never changes, so that running services may promote."""
    path = folder / _CONTROL_KEY
    if not path.is_file() or not path.read_text():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16))
    return path.read_text()
