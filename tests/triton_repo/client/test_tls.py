"""Triton as the real stack starts it: mutual TLS, and a key for who controls models."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from srp4ctr import processes
from srp4ctr.client.channel import connect
from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import broker, ports, triton_install, triton_server
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops import stack_secrets
from srp4ctr.triton_repo.config import TlsConfig, TritonConfig
from srp4ctr.triton_repo.deployment import one_server
from tests.compose import real_stack
from tests.docs.pages import blocks
from tests.triton_repo.bundles import KNOWN_ITEM, make_bundle_in, promote

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]


def known_as(files: Path, name: str) -> TlsConfig:
    return TlsConfig(
        enabled=True,
        ca_file=str(files / "ca.pem"),
        certificate_file=str(files / f"{name}.pem"),
        key_file=str(files / f"{name}.key"),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack") / "secrets"
    stack_secrets.make(folder)
    return folder


@contextmanager
def started(files: Path, plan: triton_server.ServerPlan, folder: Path) -> Iterator[None]:
    """Run a server with the real stack's command."""
    serving = triton_install.build(Path(EmbeddedConfig().serving_dir))
    plan.repository.mkdir()
    where = (plan.grpc_port, plan.metrics_port)
    command = real_stack.triton_command(files, plan.repository, where, serving.server)
    program = processes.Program(
        name="triton",
        command=tuple(command),
        env=triton_server.environment(serving, plan),
        cwd=str(folder),
    )
    running = processes.start(program, folder, tied=True)
    try:
        processes.wait_ready(
            running, lambda: ports.is_open(plan.metrics_port), timeout_s=120
        )
        yield
    finally:
        processes.stop(running, folder)


@pytest.fixture(scope="module")
def closed(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonConfig]:
    """Yield how the promoter reaches a server with the stack's command; it serves v1."""
    from srp4ctr.features.online import feast_store  # Feast: 3 s

    folder = tmp_path_factory.mktemp("closed")
    with ports.reserved_ports(3) as (grpc, metrics, redis):
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
        )
        triton = TritonConfig(
            grpc=f"{ports.HOST}:{grpc}",
            repository=str(plan.repository),
            tls=known_as(files, "promoter"),
            control_key_file=str(files / "triton_control"),
            max_latency_ratio=100.0,
            native=False,
        )
        with started(files, plan, folder):
            feast_store.apply(features)
            bundle = make_bundle_in(folder / "bundles")("v1", mark=1.0)
            promote(bundle, triton, features)
            yield triton
    processes.stop(store, folder)


def test_a_caller_with_a_certificate_of_the_stack_s_is_answered(
    closed: TritonConfig, files: Path
) -> None:
    with RankClient(closed.grpc, tls=known_as(files, "caller")) as client:
        ranking = client.rank("u", [KNOWN_ITEM], deadline_s=5.0)
    assert (ranking.model_version, ranking.status) == ("v1", "cold_user")


def test_the_page_s_caller_is_answered(
    closed: TritonConfig, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [
        each.text
        for each in blocks("python")
        if each.page == "docs/security.md" and "RankClient" in each.text
    ]
    monkeypatch.chdir(files)
    here: dict[str, Any] = {}
    exec(block.replace("rank.example.com:8001", closed.grpc), here)
    with here["client"] as client:
        ranking = client.rank("u", [KNOWN_ITEM], deadline_s=5.0)
    assert ranking.model_version == "v1"


def test_a_client_without_a_certificate_of_the_stack_s_authority_is_not(
    closed: TritonConfig, files: Path, tmp_path: Path
) -> None:
    stack_secrets.make(tmp_path / "other")
    other_ca = replace(
        known_as(tmp_path / "other", "caller"), ca_file=str(files / "ca.pem")
    )
    nobody = TlsConfig(enabled=True, ca_file=str(files / "ca.pem"))
    a_server = known_as(files, "redis")  # its certificate is no client's
    for refused in (None, nobody, other_ca, a_server):
        with (
            RankClient(closed.grpc, tls=refused) as client,
            pytest.raises(ConnectionError, match="UNAVAILABLE"),
        ):
            client.rank("u", [KNOWN_ITEM], deadline_s=0.5)


def test_a_caller_talks_to_no_other_server_than_the_stack_s(
    closed: TritonConfig, files: Path, tmp_path: Path
) -> None:
    stack_secrets.make(tmp_path / "other")
    misled = replace(known_as(files, "caller"), ca_file=str(tmp_path / "other" / "ca.pem"))
    with (
        RankClient(closed.grpc, tls=misled) as client,
        pytest.raises(ConnectionError, match="UNAVAILABLE"),
    ):
        client.rank("u", [KNOWN_ITEM], deadline_s=0.5)


def test_a_caller_s_certificate_loads_no_models(closed: TritonConfig, files: Path) -> None:
    caller = replace(closed, tls=known_as(files, "caller"), control_key_file="")
    for tried in (caller, replace(caller, control_key="guessed")):
        with (
            one_server.connected(tried) as client,
            pytest.raises(InferenceServerException, match="restricted"),
        ):
            client.unload_model("rank_clicks")


def test_no_connection_is_an_error_that_names_the_setting(
    closed: TritonConfig, files: Path
) -> None:
    plain = replace(closed, tls=TlsConfig())
    with (
        pytest.raises(OutageError, match=r"does it need triton\.tls"),
        one_server.connected(plain),
    ):
        pass
    with pytest.raises(ValueError, match=r"triton\.tls\.ca_file nowhere: No such file"):
        connect(closed.grpc, TlsConfig(enabled=True, ca_file="nowhere"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ca_file": "ca.pem"}, "nothing would be encrypted"),
        ({"enabled": True, "certificate_file": "me.pem"}, "belong together"),
    ],
)
def test_half_of_a_setting_is_an_error(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TlsConfig(**values)  # type: ignore[arg-type]


def test_the_key_is_in_no_repr_and_its_file_may_end_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    config = TritonConfig(control_key_file=str(tmp_path / "key"))
    assert config.known_control_key() == "s3cret"
    assert "s3cret" not in repr(replace(config, control_key="s3cret"))
    with pytest.raises(ValueError, match=r"triton\.control_key_file nowhere"):
        TritonConfig(control_key_file="nowhere").known_control_key()
