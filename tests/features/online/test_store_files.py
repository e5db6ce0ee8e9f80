import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.store_files import rewrite_files

ERASED = b"what-the-user-had-done"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Redis]:
    with ports.reserved_ports(1) as (port,):
        running = broker.start_store(tmp_path, port, tied=True)
        try:
            with Redis(host=ports.HOST, port=port) as client:
                yield client
        finally:
            processes.stop(running, tmp_path)


def config_of(store: Redis) -> FeatureConfig:
    port = store.connection_pool.connection_kwargs["port"]
    return FeatureConfig(redis=f"{ports.HOST}:{port}")


def on_disk(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(file.read_bytes() for file in files if file.suffix != ".log")


@pytest.mark.stack
def test_an_earlier_row_leaves_the_store_s_files(store: Redis, tmp_path: Path) -> None:
    store.set("user", ERASED)
    store.set("user", b"")
    assert ERASED in on_disk(tmp_path)
    assert rewrite_files(config_of(store)) == "the store is rewriting its append-only file"
    deadline = time.monotonic() + 60
    while ERASED in on_disk(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.stack
def test_a_store_that_forbids_it_is_named(store: Redis) -> None:
    store.acl_setuser("default", enabled=True, commands=["-bgrewriteaof"], nopass=True)
    assert "until it does (BGREWRITEAOF)" in rewrite_files(config_of(store))


def test_a_store_that_is_away_is_named() -> None:
    with ports.reserved_ports(1) as (port,):
        said = rewrite_files(FeatureConfig(redis=f"{ports.HOST}:{port}"))
    assert said.startswith("the store did not rewrite")
