"""Bundles deployed, refused and rolled back in a real tritonserver."""

import math
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from srp4ctr.client.codec import infer_inputs
from srp4ctr.client.messages import Ranking, RankRequest
from srp4ctr.client.rank_client import RankClient
from srp4ctr.errors import OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, one_server
from srp4ctr.triton_repo.deployment.live_repository import Serving, read_serving
from tests.triton_repo.bundles import KNOWN_ITEM, STORE_GATE, MakeBundle, inputs_of
from tests.triton_repo.conftest import Server

pytestmark = pytest.mark.triton

# Versions of this module's one server only go up; each is used once.
VERSIONS = iter(range(1, 1000))
SOURCES: dict[str, Path] = {}


@pytest.fixture
def promoted(server: Server, make_bundle: MakeBundle) -> str:
    """Return the version that serves now; loading one takes seconds, so tests share it."""
    serving = read_serving(server.plan.repository).serving
    return serving or promote(server, make_bundle)


def promote(server: Server, make_bundle: MakeBundle) -> str:
    """Promote a fresh bundle and return its version."""
    number = next(VERSIONS)
    source = make_bundle(f"v{number}", mark=float(number))
    promote_from(source, server)
    SOURCES[source.name] = source
    return source.name


def promote_from(source: Path, server: Server) -> Serving:
    done = one_server.deploy(source, server.triton, server.features, [STORE_GATE])
    assert not done.refusal, done.refusal
    one_server.remove_unused(server.triton)
    return done.serving


def refusal(source: Path, server: Server) -> str:
    """Return why the server does not serve the bundle in ``source``."""
    triton, features = server.triton, server.features
    return one_server.deploy(source, triton, features, [STORE_GATE]).refusal


def rank(server: Server, items: list[str]) -> Ranking:
    with RankClient(server.triton.grpc) as client:
        return client.rank("u1", items, context='{"page": "home"}')


def loaded_models(server: Server) -> set[str]:
    with one_server.connected(server.triton) as client:
        index = client.get_model_repository_index(as_json=True)["models"]
    return {model["name"] for model in index if model.get("state") == "READY"}


def test_unknown_users_and_items_get_a_finite_score_and_a_status(
    server: Server, promoted: str
) -> None:
    ranking = rank(server, [KNOWN_ITEM, "unknown", ""])
    assert ranking.model_version == promoted
    assert ranking.status == "cold_user"
    known, unknown, padding = ranking.scores
    assert math.isfinite(known)
    assert math.isfinite(unknown)
    assert math.isnan(padding)
    assert not ranking.item_statuses[0] & ItemStatus.UNKNOWN_ITEM
    assert ranking.item_statuses[1] & ItemStatus.UNKNOWN_ITEM
    assert ranking.item_statuses[2] == ItemStatus.PADDING
    assert set(ranking.to_show()) == {KNOWN_ITEM, "unknown"}


def test_many_users_in_one_call_get_the_answers_of_single_calls(
    server: Server, promoted: str
) -> None:
    requests = [
        RankRequest(user_id="u1", item_ids=[KNOWN_ITEM, "unknown", "other"]),
        RankRequest(user_id="u2", item_ids=["unknown"], context='{"page": "home"}'),
    ]
    with RankClient(server.triton.grpc) as client:
        together = client.rank_many(requests)
        apart = tuple(client.rank_many([request])[0] for request in requests)
    for each, single in zip(together, apart, strict=True):  # two processes, two tables
        assert each == replace(single, feature_version=each.feature_version)
    assert [len(each.scores) for each in together] == [3, 1]


def test_a_caller_with_own_features_calls_score_clicks(
    server: Server, promoted: str
) -> None:
    inputs = infer_inputs(
        model_names.MODEL_INPUTS, inputs_of(model_names.MODEL_INPUTS, 2, 3)
    )
    with InferenceServerClient(server.triton.grpc) as client:
        answer = client.infer(model_names.SCORE_CLICKS, inputs)
    assert answer.as_numpy("click_probability").shape == (2, 3)
    assert np.all(np.isfinite(answer.as_numpy("click_probability")))


def test_a_rollback_serves_the_previous_bundle(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    second = promote(server, make_bundle)
    assert rank(server, [KNOWN_ITEM]).model_version == second
    after = one_server.switch_back(server.triton)
    assert after == Serving(serving=promoted, previous=second)
    assert rank(server, [KNOWN_ITEM]).model_version == promoted


def test_only_the_serving_and_the_previous_steps_stay_loaded(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    versions = [promoted, promote(server, make_bundle)]
    expected = {model_names.step_name(model_names.CLICK_RANKER, v) for v in versions}
    of_canary = {model_names.RANK_CLICKS_CANARY, model_names.CANARY_EXPERIMENT}
    ensembles = set(model_names.ENSEMBLES) - of_canary
    assert loaded_models(server) == expected | ensembles
    folders = {path.parent.name for path in server.plan.repository.glob("*/config.pbtxt")}
    assert folders == expected | ensembles


def test_a_switch_loads_no_step_twice(server: Server, promoted: str) -> None:
    log = (server.folder / "logs" / "triton.log").read_text()
    assert log.count(f"loading: click_ranker_{promoted}:") == 1


def test_promoting_what_serves_changes_nothing(server: Server, promoted: str) -> None:
    before = read_serving(server.plan.repository)
    assert promote_from(SOURCES[promoted], server) == before


def test_another_bundle_of_the_serving_version_is_refused(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    other = make_bundle(promoted, mark=99.0)
    with pytest.raises(ValueError, match="another bundle"):
        promote_from(other, server)


def test_a_bundle_that_answers_otherwise_than_in_training_is_refused(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    wrong = make_bundle(f"v{next(VERSIONS)}", mark=1.0, shift=0.01)
    assert re.search(rf"differ .*0\.01.* serving: {promoted}", refusal(wrong, server))
    assert rank(server, [KNOWN_ITEM]).model_version == promoted
    assert model_names.step_name(model_names.CLICK_RANKER, wrong.name) not in loaded_models(
        server
    )


def test_a_model_that_does_not_load_is_refused(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    broken = make_bundle(f"v{next(VERSIONS)}", mark=1.0)
    (broken / bundle.HEAD_FILE).write_bytes(b"not an onnx file")
    bundle.write_manifest(broken)
    assert f"serving: {promoted}" in refusal(broken, server)
    assert rank(server, [KNOWN_ITEM]).model_version == promoted


def test_a_switch_that_fails_halfway_is_undone(
    server: Server,
    promoted: str,
    make_bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(client: object, name: str, version: str) -> None:
        raise ValueError("answered by no bundle")

    monkeypatch.setattr(one_server, "check_version", refuse)
    source = make_bundle(f"v{next(VERSIONS)}", mark=1.0)
    assert "answered by no bundle" in refusal(source, server)
    assert rank(server, [KNOWN_ITEM]).model_version == promoted


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def interrupted(server: Server, make_bundle: MakeBundle, *, killed: bool = False) -> Path:
    """Return a bundle whose promotion ended after the ensembles ran it."""
    source = make_bundle(f"v{next(VERSIONS)}", mark=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_server, "check_version", interrupt)
        if killed:
            patch.setattr(live_repository, "restore", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            promote_from(source, server)
    return source


def test_an_interrupted_switch_is_undone(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    before = read_serving(server.plan.repository)
    interrupted(server, make_bundle)
    assert read_serving(server.plan.repository) == before
    assert rank(server, [KNOWN_ITEM]).model_version == promoted


def test_a_killed_switch_is_repaired_by_what_served_before(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    before = read_serving(server.plan.repository)
    interrupted(server, make_bundle, killed=True)
    assert promote_from(SOURCES[promoted], server) == before
    assert rank(server, [KNOWN_ITEM]).model_version == promoted


def test_a_killed_switch_keeps_answering_and_is_repaired_by_the_next(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    killed = interrupted(server, make_bundle, killed=True)
    wrong = make_bundle(f"v{next(VERSIONS)}", mark=1.0, shift=0.01)
    assert refusal(wrong, server)
    assert rank(server, [KNOWN_ITEM]).model_version == killed.name
    assert promote_from(killed, server) == Serving(serving=killed.name, previous=promoted)
    SOURCES[killed.name] = killed
    text = (server.folder / "logs" / "triton.log").read_text()
    assert text.count(f"loading: click_ranker_{killed.name}:") == 1


def test_a_damaged_bundle_is_refused_before_it_touches_the_server(
    server: Server, make_bundle: MakeBundle
) -> None:
    damaged = make_bundle(f"v{next(VERSIONS)}", mark=1.0)
    (damaged / bundle.ENCODER_FILE).write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"encoder\.onnx has changed"):
        promote_from(damaged, server)


def test_a_switch_loses_no_request_and_mixes_no_pair(
    server: Server, promoted: str, make_bundle: MakeBundle
) -> None:
    rankings: list[Ranking] = []
    errors: list[Exception] = []
    done = threading.Event()

    def call() -> None:
        with RankClient(server.triton.grpc) as client:
            while not done.is_set():
                try:
                    rankings.append(client.rank("u1", [KNOWN_ITEM], deadline_s=10.0))
                except (ConnectionError, ValueError) as error:
                    errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        second = promote(server, make_bundle)
        one_server.switch_back(server.triton)
        one_server.switch_back(server.triton)
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert errors == []
    assert {ranking.model_version for ranking in rankings} == {promoted, second}
    # An encoder and a head of different versions would differ by 0.2 at least.
    assert {round(score, 1) for r in rankings for score in r.scores} == {0.5}


def test_a_restarted_server_serves_the_same_bundle(server: Server, promoted: str) -> None:
    server.stop()
    server.start()
    assert rank(server, [KNOWN_ITEM]).model_version == promoted


@pytest.mark.parametrize(
    ("items", "sentence"),
    [([], "0 item_ids; send 1 to 1000"), (["x"] * 1001, "1001 item_ids")],
)
def test_no_items_and_too_many_are_refused(
    server: Server, promoted: str, items: list[str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        rank(server, items)
    assert rank(server, [KNOWN_ITEM]).status == "cold_user"


def test_without_a_server_the_error_says_what_to_do(
    server: Server, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    nowhere = TritonConfig(grpc="127.0.0.1:1", repository=str(tmp_path / "live"))
    with pytest.raises(OutageError, match="stack status"):
        promote_from(make_bundle("v1", mark=1.0), replace(server, triton=nowhere))
