"""A server that is added gets what the others serve, before it starts."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops.triton.readiness import why_not_ready
from srp4ctr.triton_repo.config import ReplicaConfig, TlsConfig, TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, repository_writer
from srp4ctr.triton_repo.deployment.live_repository import (
    Serving,
    live_versions,
    read_serving,
)
from srp4ctr.triton_repo.deployment.new_server import fill
from srp4ctr.triton_repo.model_names import ENSEMBLES
from tests.triton_repo.bundles import MakeBundle, promote
from tests.triton_repo.conftest import Server


@pytest.fixture
def servers(tmp_path: Path) -> TritonConfig:
    """Three servers, none of which has anything."""
    others = (
        ReplicaConfig(grpc=f"{name}:8001", repository=str(tmp_path / name))
        for name in ("second", "third")
    )
    first = str(tmp_path / "first")
    return TritonConfig(
        grpc="first:8001", repository=first, replicas=tuple(others), native=False
    )


def serve(repository: Path, serving: Serving, bundles: Path) -> None:
    """Write into ``repository`` what a promotion writes."""
    config = TritonConfig(repository=str(repository), native=False)
    for version in filter(None, serving.versions):
        card = bundle.read(bundles / version)
        repository_writer.render(bundles / version, card, config, FeatureConfig())
    live_repository.place(repository, serving)


def bundles_of(make_bundle: MakeBundle, *numbers: int) -> Path:
    """Make bundles ``v1``, ``v2``, …, and return the folder that holds them."""
    folders = [make_bundle(f"v{number}", mark=float(number)) for number in numbers]
    return folders[0].parent


def files_of(repository: Path) -> dict[str, bytes]:
    return {
        path.relative_to(repository).as_posix(): path.read_bytes()
        for path in repository.rglob("*")
        if path.is_file() and path.name != "promotion.lock"
    }


def test_an_added_server_has_the_same_files_as_the_first(
    servers: TritonConfig, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundles = bundles_of(make_bundle, 1, 2, 3)
    serving = Serving(serving="v2", previous="v1", canary="v3")
    serve(tmp_path / "first", serving, bundles)
    second = tmp_path / "second"
    assert fill(second, servers, FeatureConfig(), bundles.joinpath) == serving
    assert files_of(second) == files_of(tmp_path / "first")
    assert {path.name for path in second.iterdir()} >= set(ENSEMBLES)
    before = {path: path.stat().st_mtime_ns for path in second.rglob("*.pbtxt")}
    assert fill(second, servers, FeatureConfig(), bundles.joinpath) == serving
    assert {path: path.stat().st_mtime_ns for path in second.rglob("*.pbtxt")} == before


def test_nothing_is_made_where_nothing_serves(
    servers: TritonConfig, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        assert (
            fill(tmp_path / name, servers, FeatureConfig(), tmp_path.joinpath) == Serving()
        )
        assert files_of(tmp_path / name) == {}


def test_an_outdated_server_is_brought_up_to_date(
    servers: TritonConfig, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundles = bundles_of(make_bundle, 1, 2)
    serve(tmp_path / "first", Serving(serving="v2"), bundles)
    serve(tmp_path / "third", Serving(serving="v1", canary="v2"), bundles)
    found = fill(tmp_path / "third", servers, FeatureConfig(), bundles.joinpath)
    assert found == Serving(serving="v2") == read_serving(tmp_path / "third")
    assert live_versions(tmp_path / "third") == {"v2"}
    assert not (tmp_path / "third" / "rank_clicks_canary").exists()


def test_the_first_server_takes_from_the_others_only_if_it_has_nothing(
    servers: TritonConfig, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundles = bundles_of(make_bundle, 1, 2)
    serve(tmp_path / "third", Serving(serving="v1"), bundles)
    first = tmp_path / "first"
    assert fill(first, servers, FeatureConfig(), bundles.joinpath).serving == "v1"
    # A promotion in progress has changed the first one.
    serve(first, Serving(serving="v2", previous="v1"), bundles)
    assert fill(first, servers, FeatureConfig(), bundles.joinpath).serving == "v2"


def test_a_bundle_that_is_gone_is_left_out_unless_it_serves(
    servers: TritonConfig, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundles = bundles_of(make_bundle, 1, 2)
    serve(tmp_path / "first", Serving(serving="v2", previous="v1"), bundles)
    (bundles / "v1").rename(tmp_path / "v1")
    found = fill(tmp_path / "second", servers, FeatureConfig(), bundles.joinpath)
    assert found == Serving(serving="v2")
    (bundles / "v2").rename(tmp_path / "v2")
    with pytest.raises(ValueError, match="v2 is gone"):
        fill(tmp_path / "third", servers, FeatureConfig(), bundles.joinpath)
    assert read_serving(tmp_path / "third") == Serving()


def test_a_damaged_bundle_is_refused(
    servers: TritonConfig, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = make_bundle("v1", mark=1.0)
    serve(tmp_path / "first", Serving(serving="v1"), source.parent)
    (source / bundle.HEAD_FILE).write_bytes(b"")
    with pytest.raises(ValueError, match=r"head\.onnx has changed"):
        fill(tmp_path / "second", servers, FeatureConfig(), source.parent.joinpath)


def test_the_settings_of_each_server_are_its_own(
    servers: TritonConfig, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = make_bundle("v1", mark=1.0)
    serve(tmp_path / "first", Serving(serving="v1"), source.parent)
    gpu = replace(servers, backend="onnxruntime")
    fill(tmp_path / "second", gpu, FeatureConfig(), source.parent.joinpath)
    steps = repository_writer.step_folders(tmp_path / "second", "v1")
    assert len(steps) == 3


def test_the_command_prints_what_serves(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_bundle("v1", mark=1.0)
    serve(tmp_path / "first", Serving(serving="v1"), source.parent)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("SRP4CTR_TRAINING__BUNDLES_DIR", str(source.parent))
    monkeypatch.setenv("SRP4CTR_TRITON__REPOSITORY", str(tmp_path / "first"))
    second = str(tmp_path / "second")
    done = CliRunner().invoke(app, ["model", "fill", second])
    assert done.stdout == f"{second}: v1\n"


@pytest.mark.triton
def test_a_filled_server_serves_and_is_ready_once_it_is_started(
    server: Server, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = make_bundle("v1", mark=1.0)
    serve(tmp_path / "first", Serving(serving="v1"), source.parent)
    own = Path(server.triton.repository)
    both = replace(
        server.triton,
        repository=str(tmp_path / "first"),
        replicas=(ReplicaConfig(grpc=server.triton.grpc, repository=str(own)),),
    )
    server.stop()
    fill(own, both, server.features, source.parent.joinpath)
    assert why_not_ready(server.triton.grpc, own, TlsConfig())
    server.start()
    deadline = time.monotonic() + 60.0
    while why_not_ready(server.triton.grpc, own, TlsConfig()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with RankClient(server.triton.grpc) as client:
        answer = client.rank("u", ["i"], deadline_s=20.0)
    assert (answer.model_version, answer.status) == ("v1", "cold_user")
    # The next promotion finds what it needs, as on any other server.
    newer = make_bundle("v2", mark=2.0)
    done = promote(newer, server.triton, server.features)
    assert done.serving == Serving(serving="v2", previous="v1")
