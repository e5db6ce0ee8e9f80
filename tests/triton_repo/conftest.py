"""A running tritonserver with an empty repository and an empty feature store."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker, ports, triton_install, triton_server
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from tests.triton_repo.bundles import MakeBundle, make_bundle_in

CONTROL_KEY = "a key of these tests"


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    return make_bundle_in(tmp_path / "bundles")


@dataclass
class Server:
    """A tritonserver that a test may restart."""

    folder: Path
    plan: triton_server.ServerPlan
    triton: TritonConfig
    features: FeatureConfig
    running: processes.Running | None = None

    def start(self) -> None:
        serving = triton_install.build(Path(EmbeddedConfig().serving_dir))
        self.running = triton_server.start(serving, self.plan, self.folder, tied=True)

    def stop(self) -> None:
        assert self.running is not None
        processes.stop(self.running, self.folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with ports.reserved_ports(3) as (redis, grpc, metrics):
        store = broker.start_store(folder, redis, tied=True)
        features = FeatureConfig(
            redis=f"{ports.HOST}:{redis}",
            registry=str(folder / "registry.db"),
            log_dir=str(folder / "events"),
        )
        plan = triton_server.ServerPlan(
            repository=folder / "triton",
            redis=features.redis,
            registry=features.registry,
            grpc_port=grpc,
            metrics_port=metrics,
            control_key=CONTROL_KEY,
        )
        triton = TritonConfig(
            grpc=f"{ports.HOST}:{grpc}",
            repository=str(plan.repository),
            control_key=CONTROL_KEY,
            max_latency_ratio=100.0,  # what else runs here is not what these tests are of
            native=False,  # tests/triton_repo/native has the tests of that step
        )
        started = Server(folder, plan, triton, features)
        started.start()
    from srp4ctr.features.online import feast_store  # Feast: 3 s

    feast_store.apply(features)
    yield started
    started.stop()
    processes.stop(store, folder)
