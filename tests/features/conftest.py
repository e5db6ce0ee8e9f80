"""A real Redis-protocol store: the binary of the ``noida-db`` wheel, as users have it."""

import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from features.config import FeatureConfig


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start one store for all tests; each test's project of rows has names of its own."""
    folder = tmp_path_factory.mktemp("noida")
    port = free_port()
    binary = Path(str(files("noida_db").joinpath("noida-db")))
    binary.chmod(0o755)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                "start",
                "--data-dir",
                folder,
                "--only",
                "redis",
                "--redis-port",
                str(port),
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        _wait_until_open(port, process, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def store_config(
    redis_port: int, tmp_path_factory: pytest.TempPathFactory
) -> FeatureConfig:
    """Return the settings of a store whose views are registered."""
    from features import store

    folder = tmp_path_factory.mktemp("feast")
    config = FeatureConfig(
        redis=f"127.0.0.1:{redis_port}",
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
    )
    store.apply(config)
    return config


def _wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"noida-db did not start:\n{log.read_text()[-2000:]}")
