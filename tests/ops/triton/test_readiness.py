"""The readiness probe: the serving model must be loaded, and the server authenticated."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2

from srp4ctr.ops import stack_secrets
from srp4ctr.ops.triton import readiness
from srp4ctr.ops.triton.readiness import why_not_ready
from srp4ctr.triton_repo.config import TlsConfig
from srp4ctr.triton_repo.model_names import RANK_CLICKS, SCORE_CLICKS

PLAIN = TlsConfig()


@contextmanager
def triton(
    models: Mapping[str, bool], credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Yield the address of a server that has ``models``, each ready or not."""

    def model_ready(request: bytes, context: grpc.ServicerContext) -> bytes:
        name = service_pb2.ModelReadyRequest.FromString(request).name
        answer = service_pb2.ModelReadyResponse(ready=models.get(name, False))
        return bytes(answer.SerializeToString())

    def server_ready(request: bytes, context: grpc.ServicerContext) -> bytes:
        return bytes(service_pb2.ServerReadyResponse(ready=True).SerializeToString())

    methods = {"ModelReady": model_ready, "ServerReady": server_ready}
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(each) for name, each in methods.items()
    }
    server = grpc.server(ThreadPoolExecutor(1))
    service = "inference.GRPCInferenceService"
    generic = grpc.method_handlers_generic_handler(service, handlers)
    server.add_generic_rpc_handlers((generic,))
    if credentials:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def promoted(repository: Path, *names: str) -> Path:
    for name in names:
        (repository / name).mkdir(parents=True)
        (repository / name / "config.pbtxt").touch()
    return repository


def test_before_the_first_promotion_a_server_that_answers_is_ready(tmp_path: Path) -> None:
    with triton({}) as address:
        assert why_not_ready(address, tmp_path, PLAIN) == ""


def test_each_ensemble_that_was_promoted_must_be_loaded(tmp_path: Path) -> None:
    repository = promoted(tmp_path, RANK_CLICKS, SCORE_CLICKS)
    with triton({RANK_CLICKS: True, SCORE_CLICKS: True}) as address:
        assert why_not_ready(address, repository, PLAIN) == ""
    for broken in (RANK_CLICKS, SCORE_CLICKS):
        with triton({RANK_CLICKS: True, SCORE_CLICKS: True, broken: False}) as address:
            assert why_not_ready(address, repository, PLAIN) == f"{broken} is not ready"


def test_a_server_that_is_away_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with triton({}) as address:
        pass
    monkeypatch.setattr(sys, "argv", ["triton_ready", address, str(tmp_path)])
    with pytest.raises(SystemExit, match="ServerReady: UNAVAILABLE"):
        readiness.main()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_it_shows_the_supervisors_certificate(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path)
    ca = (tmp_path / "ca.pem").read_bytes()
    pair = [(tmp_path / f"triton.{kind}").read_bytes() for kind in ("key", "pem")]
    mutual = grpc.ssl_server_credentials([tuple(pair)], ca, require_client_auth=True)
    watch = TlsConfig(
        enabled=True,
        ca_file=str(tmp_path / "ca.pem"),
        certificate_file=str(tmp_path / "watch.pem"),
        key_file=str(tmp_path / "watch.key"),
    )
    with triton({}, mutual) as address:
        assert why_not_ready(address, tmp_path, watch) == ""
        assert "UNAVAILABLE" in why_not_ready(address, tmp_path, PLAIN)
