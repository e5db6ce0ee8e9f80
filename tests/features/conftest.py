"""A real Redis-protocol store: the Valkey that the embedded stack starts."""

from collections.abc import Iterator

import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.features.config import FeatureConfig


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start one store for all tests; each test's project of rows has names of its own."""
    folder = tmp_path_factory.mktemp("store")
    with ports.reserved_ports(1) as (port,):
        running = broker.start_store(folder, port, tied=True)
    yield port
    processes.stop(running, folder)


@pytest.fixture(scope="session")
def store_config(
    redis_port: int, tmp_path_factory: pytest.TempPathFactory
) -> FeatureConfig:
    """Return the settings of a store whose views are registered."""
    from srp4ctr.features.online import feast_store

    folder = tmp_path_factory.mktemp("feast")
    config = FeatureConfig(
        redis=f"{ports.HOST}:{redis_port}",
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
    )
    feast_store.apply(config)
    return config
