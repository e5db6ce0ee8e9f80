"""Several servers of one bundle: all of them serve it, or none does."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from typer.testing import CliRunner

from srp4ctr.cli import model
from srp4ctr.cli.main import app
from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import ports
from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops.doctor import triton as doctor
from srp4ctr.settings import Settings
from srp4ctr.training.config import RefreshConfig
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import ReplicaConfig, TritonConfig
from srp4ctr.triton_repo.deployment import (
    live_repository,
    one_server,
    promotion,
    reconcile,
    rollout_lease,
)
from srp4ctr.triton_repo.deployment.live_repository import (
    Serving,
    read_serving,
)
from srp4ctr.triton_repo.deployment.one_server import Promotion
from tests.cli.json_answers import answer
from tests.triton_repo import fake_servers
from tests.triton_repo.bundles import STORE_GATE, MakeBundle, promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.fake_servers import FakeServers, FakeTriton

RETRIES = ("srp4ctr_retries_total", {"operation": "rank"})


def test_two_servers_that_share_a_repository_are_refused() -> None:
    with pytest.raises(ValueError, match="two servers share a repository"):
        TritonConfig(replicas=(ReplicaConfig(grpc="b:8001", repository=".data/triton"),))


def test_each_server_has_the_same_settings_and_its_own_address() -> None:
    further = ReplicaConfig(grpc="b:8001", repository="/b")
    config = TritonConfig(grpc="a:8001", control_key="k", replicas=(further,))
    servers = config.servers()
    assert [server.grpc for server in servers] == ["a:8001", "b:8001"]
    assert [server.repository for server in servers] == [".data/triton", "/b"]
    assert {server.control_key for server in servers} == {"k"}
    assert not any(server.replicas for server in servers)


def test_each_server_has_a_metrics_page_of_its_own() -> None:
    further = (
        ReplicaConfig(grpc="b:8001", repository="/b"),
        ReplicaConfig(grpc="c:9001", repository="/c", metrics_url="http://c:9002/metrics"),
    )
    config = TritonConfig(
        grpc="a:8001", metrics_url="http://a:8002/metrics", replicas=further
    )
    assert config.metrics_pages() == {
        "a:8001": "http://a:8002/metrics",
        "b:8001": "http://b:8002/metrics",
        "c:9001": "http://c:9002/metrics",
    }


def test_servers_of_one_host_must_say_where_their_metrics_are() -> None:
    further = ReplicaConfig(grpc="127.0.0.1:8011", repository="/b")
    config = TritonConfig(replicas=(further,))
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:8011 .* listed twice"):
        config.metrics_pages()


@pytest.mark.triton
def test_where_a_server_does_not_answer_the_others_serve_exactly_what_they_did(
    server: Server, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    first, second, third = (make_bundle(f"v{n}", mark=float(n)) for n in (1, 2, 3))
    single = server.triton
    assert promote(first, single, server.features).serving.serving == "v1"
    assert promote(second, single, server.features).serving.serving == "v2"
    repository = Path(single.repository)
    before = read_serving(repository)
    with ports.reserved_ports(1) as (closed,):
        away = ReplicaConfig(
            grpc=f"{ports.HOST}:{closed}", repository=str(tmp_path / "away")
        )
        both = replace(single, replicas=(away,))
        with pytest.raises(OutageError, match=f"no Triton answers on .*:{closed}"):
            promotion.promote(third, both, server.features, STORE_GATE)
        assert read_serving(repository) == before
        with pytest.raises(ValueError, match="srp4ctr model promote v1 makes them serve"):
            promotion.rollback(both)  # the other server never served v1
        assert promotion.rollback(single).serving == "v1"
        assert promote(third, single, server.features, canary=True).serving.canary == "v3"
        before = read_serving(repository)
        fourth = make_bundle("v4", mark=4.0)
        with pytest.raises(ValueError, match="nothing serves yet"):  # on the other one
            promotion.promote(fourth, both, server.features, STORE_GATE, canary=True)
        assert read_serving(repository) == before
    with RankClient(single.grpc) as client:
        assert client.rank("u", ["i"]).model_version == "v1"


def test_a_canary_ends_on_the_servers_that_have_one(fakes: FakeServers) -> None:
    second = fakes.triton.servers()[1]
    done = one_server.deploy(
        fakes.bundle("v2"), second, FeatureConfig(), [STORE_GATE], canary=True
    )
    assert done.serving.canary == "v2"
    promotion.end_canary(fakes.triton)
    states = reconcile.read_states(fakes.triton)
    assert [state.serving for state in states] == [Serving(serving="v1")] * 2
    with pytest.raises(MistakeError, match="there is no canary"):
        promotion.end_canary(fakes.triton)


def test_a_server_that_goes_away_amid_a_rollout_is_repaired_once_it_is_back(
    fakes: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = fakes.by_address.values()
    assert isinstance(first, FakeTriton)
    unload = first.unload_model

    def unload_and_lose_the_second(name: str) -> None:
        unload(name)
        first.is_up = second.is_up = False

    assert not rolled_out(fakes, "v2").refusal
    monkeypatch.setattr(first, "unload_model", unload_and_lose_the_second)
    with pytest.raises(reconcile.SplitError, match="srp4ctr model reconcile, once they"):
        rolled_out(fakes, "v3")
    assert fakes.serving() == {"v2", "v3"}
    [finding] = doctor.servers(Settings(triton=fakes.triton))
    assert (finding.state, finding.do) == ("wrong", "srp4ctr model reconcile")
    assert "promote v3 was not finished" in finding.found
    assert "triton-1:8001 serves v3; triton-2:8001 serves v2" in finding.found
    monkeypatch.setattr(first, "unload_model", unload)
    with pytest.raises(OutageError, match="no Triton answers"):  # it settles that first
        promotion.rollback(fakes.triton)
    first.is_up = second.is_up = True
    assert promotion.rollback(fakes.triton).serving == "v1"  # v3 was undone before
    assert fakes.serving() == {"v1"}
    [finding] = doctor.servers(Settings(triton=fakes.triton))
    assert finding.state == "ok"


def test_a_new_server_without_models_is_filled_by_reconcile(
    fakes: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not rolled_out(fakes, "v2").refusal
    shutil.rmtree(fakes.triton.servers()[1].repository)
    fakes.by_address["triton-2:8001"].loaded.clear()
    [finding] = doctor.servers(Settings(triton=fakes.triton))
    assert finding.state == "not checked"  # its repository may be on another machine
    found = answer("model reconcile", reconciled(fakes, monkeypatch, "--json"))
    assert found["action"] == "repaired"
    assert [server["before"]["serving"] for server in found["servers"]] == ["v2", None]
    assert [server["after"]["serving"] for server in found["servers"]] == ["v2", "v2"]
    assert fakes.serving() == {"v2"}
    shown = reconciled(fakes, monkeypatch)
    assert shown.splitlines() == [
        "all servers serve the same: nothing to do",
        "triton-1:8001: v2",
        "triton-2:8001: v2",
    ]


def test_a_split_by_hand_is_reported_and_repaired(
    fakes: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not rolled_out(fakes, "v2").refusal
    one_server.switch_back(fakes.triton.servers()[1])
    [finding] = doctor.servers(Settings(triton=fakes.triton))
    assert finding.found == "split: triton-1:8001 serves v2; triton-2:8001 serves v1"
    assert "triton-2:8001: v1 → v2" in reconciled(fakes, monkeypatch)
    assert fakes.serving() == {"v2"}


def test_a_promotion_that_would_leave_a_split_changes_nothing(fakes: FakeServers) -> None:
    second = fakes.triton.servers()[1]
    one_server.deploy(
        fakes.bundle("v2"), second, FeatureConfig(), [STORE_GATE], canary=True
    )
    with pytest.raises(MistakeError, match=r"would differ: .* reconcile first"):
        rolled_out(fakes, "v3")
    assert fakes.serving() == {"v1"}
    assert rollout_lease.read_record(fakes.triton).plan is None


def test_a_rollout_with_a_lower_number_is_refused(fakes: FakeServers) -> None:
    assert not rolled_out(fakes, "v2").refusal
    repository = Path(fakes.triton.servers()[1].repository)
    number = live_repository.last_number(repository)
    assert number == 2
    with (
        live_repository.numbered(number - 1),
        pytest.raises(live_repository.StaleRolloutError, match="has taken over"),
        live_repository.locked(repository),
    ):
        pytest.fail("an older rollout has locked the repository")


def test_numbers_rise_although_the_record_is_lost(fakes: FakeServers) -> None:
    (Path(fakes.triton.repository) / rollout_lease.RECORD_FILE).unlink()
    assert not rolled_out(fakes, "v2").refusal
    assert fakes.serving() == {"v2"}


def test_a_damaged_record_names_its_file(fakes: FakeServers) -> None:
    path = Path(fakes.triton.repository) / rollout_lease.RECORD_FILE
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"rollout.json is damaged .*: remove it"):
        promotion.rollback(fakes.triton)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeServers:
    """Return two servers that serve v1."""
    servers = FakeServers(tmp_path, 2, lambda _: None)
    fake_servers.install(monkeypatch, servers)
    assert not rolled_out(servers, "v1").refusal
    return servers


def rolled_out(servers: FakeServers, version: str) -> Promotion:
    source = servers.bundle(version)
    return promotion.promote(source, servers.triton, FeatureConfig(), STORE_GATE)


def reconciled(servers: FakeServers, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """Return what ``srp4ctr model reconcile`` prints."""
    folder = servers.bundle_folder("v1").parent
    training = RefreshConfig(bundles_dir=str(folder))
    features = FeatureConfig(log_dir=str(folder.parent / "events"))
    settings = Settings(triton=servers.triton, training=training, features=features)
    monkeypatch.setattr(model, "load", lambda *_: settings)
    done = CliRunner().invoke(app, ["model", "reconcile", *options])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.triton
def test_a_call_to_a_server_that_has_not_loaded_its_models_is_retried(
    server: Server, make_bundle: MakeBundle
) -> None:
    """A balancer may send it to a server that starts, and the next try to another."""
    if read_serving(Path(server.triton.repository)).serving is None:
        promote(make_bundle("v1", mark=1.0), server.triton, server.features)
    before = retries()
    with (
        one_server.connected(server.triton) as control,
        RankClient(server.triton.grpc) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        control.unload_model(model_names.RANK_CLICKS)
        answer = pool.submit(client.rank, "u", ["i"], deadline_s=60.0)
        while retries() == before:
            assert not answer.done(), answer.result()
            time.sleep(0.01)
        control.load_model(model_names.RANK_CLICKS)
        assert answer.result().model_version == "v1"


def retries() -> float:
    return REGISTRY.get_sample_value(*RETRIES) or 0.0
