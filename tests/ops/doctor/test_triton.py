"""The doctor's checks of tritonservers, closed and open; neither has a model."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded import ports, triton_install, triton_server
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.ops.doctor import triton
from srp4ctr.settings import Settings
from srp4ctr.triton_repo.config import TlsConfig, TritonConfig
from tests.compose import real_stack

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]


@pytest.fixture(scope="module")
def closed(
    stack_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonConfig]:
    """Yield a server with the real stack's command."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "models").mkdir()
    serving = triton_install.build(Path(EmbeddedConfig().serving_dir))
    with ports.reserved_ports(2) as (grpc, metrics):
        command = real_stack.triton_command(
            stack_files, folder / "models", (grpc, metrics), serving.server
        )
        program = processes.Program(name="triton", command=tuple(command))
        running = processes.start(program, folder, tied=True)
        processes.wait_ready(running, lambda: ports.is_open(metrics), timeout_s=60)
    yield TritonConfig(
        grpc=f"{ports.HOST}:{grpc}",
        repository=str(folder / "models"),
        control_key_file=str(stack_files / "triton_control"),
        tls=TlsConfig(
            enabled=True,
            ca_file=str(stack_files / "ca.pem"),
            certificate_file=str(stack_files / "promoter.pem"),
            key_file=str(stack_files / "promoter.key"),
        ),
    )
    processes.stop(running, folder)


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonConfig]:
    """Yield a plain server whose models every client may load and unload."""
    folder = tmp_path_factory.mktemp("unguarded")
    serving = triton_install.build(Path(EmbeddedConfig().serving_dir))
    with ports.reserved_ports(2) as (grpc, metrics):
        plan = triton_server.ServerPlan(
            repository=folder / "models",
            redis="",
            registry="",
            grpc_port=grpc,
            metrics_port=metrics,
        )
        running = triton_server.start(serving, plan, folder, tied=True)
    yield TritonConfig(grpc=f"{ports.HOST}:{grpc}", repository=str(folder / "models"))
    processes.stop(running, folder)


def test_the_real_stack_s_is_closed(closed: TritonConfig) -> None:
    settings = Settings(triton=closed)
    (access,) = triton.anonymous(settings)
    (control,) = triton.control(settings)
    (serving,) = triton.serving(settings)
    assert (access.state, control.state) == ("ok", "ok")
    assert (serving.state, serving.do) == ("not checked", "srp4ctr model refresh")


def test_a_key_that_is_not_the_server_s_is_wrong(closed: TritonConfig) -> None:
    other = replace(closed, control_key_file="", control_key="of another server")
    _, ours = triton.control(Settings(triton=other))
    assert (ours.state, ours.found) == ("wrong", "our control key is not the server's")


def test_models_that_every_client_may_unload_are_open(unguarded: TritonConfig) -> None:
    (control,) = triton.control(Settings(triton=unguarded))
    assert control.state == "open"
    assert control.found.endswith("load and unload models without a key")


def test_a_plain_server_on_127_0_0_1_is_no_finding(
    unguarded: TritonConfig,
) -> None:
    (access,) = triton.anonymous(Settings(triton=unguarded))
    assert access.state == "ok"
    assert "on 127.0.0.1 only" in access.found
