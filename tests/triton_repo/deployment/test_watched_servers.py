"""Three real Tritons, of which one is stopped and one hangs: the monitor names them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr.embedded import ports
from srp4ctr.monitoring.cost.triton_servers import TritonServers
from srp4ctr.ops.monitor_jobs import model_readiness
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import ReplicaConfig, TritonConfig
from srp4ctr.triton_repo.deployment import one_server, promotion
from tests.triton_repo.bundles import STORE_GATE, MakeBundle
from tests.triton_repo.conftest import Server

pytestmark = pytest.mark.triton
WAIT_S = 60.0  # a server loads its models again


@pytest.fixture
def servers(server: Server, tmp_path: Path) -> Iterator[list[Server]]:
    """Start two servers next to ``server``, each with its own repository."""
    with ExitStack() as stack:
        started = [server]
        for name in ("second", "third"):
            grpc, metrics = stack.enter_context(ports.reserved_ports(2))
            folder = tmp_path / name
            folder.mkdir()
            plan = replace(
                server.plan,
                repository=folder / "triton",
                grpc_port=grpc,
                metrics_port=metrics,
            )
            address = f"{ports.HOST}:{grpc}"
            triton = replace(server.triton, grpc=address, repository=str(plan.repository))
            each = Server(folder, plan, triton, server.features)
            each.start()
            stack.callback(each.stop)
            started.append(each)
        yield started


def all_of(servers: list[Server]) -> TritonConfig:
    """Return the settings of all servers, the first one's replicas being the others."""
    first, *others = servers
    return replace(
        first.triton,
        metrics_url=page_of(first),
        replicas=tuple(
            ReplicaConfig(
                grpc=each.triton.grpc,
                repository=each.triton.repository,
                metrics_url=page_of(each),
            )
            for each in others
        ),
    )


def page_of(server: Server) -> str:
    return f"http://{ports.HOST}:{server.plan.metrics_port}/metrics"


def test_the_monitor_reports_which_server_is_away_or_has_no_model(
    servers: list[Server], make_bundle: MakeBundle
) -> None:
    config = all_of(servers)
    promotion.promote(make_bundle("v1", mark=1.0), config, servers[0].features, STORE_GATE)
    has_model = model_readiness(config.tls)
    watched = TritonServers(config.metrics_pages(), 60.0, has_model)
    names = [server.triton.grpc for server in servers]

    def states() -> list[tuple[bool, bool]]:
        watched.poll()
        by_name = {server.name: server for server in watched.servers({})}
        return [(by_name[name].is_up, by_name[name].is_ready) for name in names]

    def wait_for(*expected: tuple[bool, bool]) -> None:
        until_s = time.monotonic() + WAIT_S
        while (found := states()) != list(expected):
            assert time.monotonic() < until_s, found
            time.sleep(0.2)

    well, away, empty = (True, True), (False, False), (True, False)
    wait_for(well, well, well)
    with one_server.connected(servers[1].triton) as control:
        control.unload_model(model_names.RANK_CLICKS)
        wait_for(well, empty, well)
        control.load_model(model_names.RANK_CLICKS)
        wait_for(well, well, well)
    hanging = servers[2].running
    assert hanging is not None
    os.killpg(hanging.pid, signal.SIGSTOP)
    try:
        wait_for(well, well, away)
        servers[1].stop()
        wait_for(well, away, away)
    finally:
        os.killpg(hanging.pid, signal.SIGCONT)
    wait_for(well, away, well)
    servers[1].start()
    wait_for(well, well, well)
