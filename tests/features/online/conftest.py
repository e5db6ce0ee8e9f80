"""A cluster of the store, for tests that run on both kinds."""

import dataclasses
from collections.abc import Iterator

import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.features.config import FeatureConfig


@pytest.fixture(scope="module")
def cluster_config(
    store_config: FeatureConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FeatureConfig]:
    folder = tmp_path_factory.mktemp("cluster")
    with ports.reserved_ports(2 * broker.NODES) as free:
        nodes = broker.start_cluster(folder, free, tied=True)
    some = f"{ports.HOST}:{free[1]},{ports.HOST}:{free[2]}"
    yield dataclasses.replace(store_config, redis=some, redis_cluster=True)
    for node in nodes:
        processes.stop(node, folder)
