"""Several servers of one bundle: all of them serve it, or none does."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import ports
from srp4ctr.errors import OutageError
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import ReplicaConfig, TritonConfig
from srp4ctr.triton_repo.deployment import promotion, rollout
from srp4ctr.triton_repo.deployment.live_repository import (
    Serving,
    read_serving,
)
from tests.triton_repo.bundles import STORE_GATE, MakeBundle, promote
from tests.triton_repo.conftest import Server

RETRIES = ("srp4ctr_retries_total", {"operation": "rank"})


def test_two_servers_that_share_a_repository_are_refused() -> None:
    with pytest.raises(ValueError, match="two servers share a repository"):
        TritonConfig(replicas=(ReplicaConfig(grpc="b:8001", repository=".data/triton"),))


def test_each_server_has_the_same_settings_and_its_own_address() -> None:
    further = ReplicaConfig(grpc="b:8001", repository="/b")
    config = TritonConfig(grpc="a:8001", control_key="k", replicas=(further,))
    servers = config.servers()
    assert [each.grpc for each in servers] == ["a:8001", "b:8001"]
    assert [each.repository for each in servers] == [".data/triton", "/b"]
    assert {each.control_key for each in servers} == {"k"}
    assert not any(each.replicas for each in servers)


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
            rollout.promote(third, both, server.features, STORE_GATE)
        assert read_serving(repository) == before
        with pytest.raises(ValueError, match="srp4ctr model promote v1 makes them serve"):
            rollout.rollback(both)  # the other server never served v1
        assert promotion.rollback(single).serving == "v1"
        assert promote(third, single, server.features, canary=True).serving.canary == "v3"
        before = read_serving(repository)
        fourth = make_bundle("v4", mark=4.0)
        with pytest.raises(ValueError, match="nothing serves yet"):  # on the other one
            rollout.promote(fourth, both, server.features, STORE_GATE, canary=True)
        assert read_serving(repository) == before
    with RankClient(single.grpc) as client:
        assert client.rank("u", ["i"]).model_version == "v1"


def test_a_canary_ends_on_the_servers_that_have_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [str(tmp_path / name) for name in "ab"]
    further = ReplicaConfig(grpc="b:8001", repository=names[1])
    config = TritonConfig(grpc="a:8001", repository=names[0], replicas=(further,))
    for name, canary in zip(names, (None, "v2"), strict=True):
        serving = Serving(serving="v1", canary=canary)
        Path(name).mkdir()
        (Path(name) / model_names.SERVING_FILE).write_text(json.dumps(asdict(serving)))
    ended: list[str] = []
    monkeypatch.setattr(promotion, "end_canary", lambda each: ended.append(each.grpc))
    rollout.end_canary(config)
    assert ended == ["b:8001"]


@pytest.mark.triton
def test_a_call_to_a_server_that_has_not_loaded_its_models_is_retried(
    server: Server, make_bundle: MakeBundle
) -> None:
    """A balancer may send it to a server that starts, and the next try to another."""
    if read_serving(Path(server.triton.repository)).serving is None:
        promote(make_bundle("v1", mark=1.0), server.triton, server.features)
    before = retries()
    with (
        promotion.connected(server.triton) as control,
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
