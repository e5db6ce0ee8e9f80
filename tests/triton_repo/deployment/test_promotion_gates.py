"""The gates of a promotion on a real tritonserver."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from srp4ctr.client.rank_client import RankClient
from srp4ctr.errors import OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import one_server, promotion, repository_writer
from srp4ctr.triton_repo.deployment.live_repository import (
    Serving,
    read_serving,
    restore,
    switch,
)
from srp4ctr.triton_repo.deployment.one_server import Promotion
from srp4ctr.triton_repo.deployment.repository_writer import ENSEMBLE_FOLDER
from srp4ctr.triton_repo.deployment.validation import latency_gate
from tests.triton_repo.bundles import KNOWN_ITEM, STORE_GATE, MakeBundle, make_bundle_in
from tests.triton_repo.conftest import Server

pytestmark = pytest.mark.triton


def promote(source: Path, server: Server, max_latency_ratio: float) -> Promotion:
    triton = replace(server.triton, max_latency_ratio=max_latency_ratio)
    return promotion.promote(source, triton, server.features, STORE_GATE)


@pytest.fixture(scope="module")
def first(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Promotion:
    """The promotion of v1: nothing served before."""
    make = make_bundle_in(tmp_path_factory.mktemp("bundles"))
    return promote(make("v1", mark=1.0), server, 1.5)


def test_the_first_bundle_has_nothing_to_be_slower_than(first: Promotion) -> None:
    gates = {gate.gate: gate.passed for gate in first.gates}
    assert gates == {"skew": True, "golden": True, "golden_ids": True, "latency": None}
    assert first.gates[-1].note == "nothing served before"


@pytest.mark.parametrize(("version", "part"), [("v2", "head"), ("v3", "encoder")])
def test_a_bundle_that_is_much_slower_than_the_serving_one_is_refused(
    server: Server, first: Promotion, make_bundle: MakeBundle, version: str, part: str
) -> None:
    # 16 GFLOP a request; the cache of an encoder's states makes it no faster.
    slow = make_bundle(version, mark=2.0, work=2000, slow=part)
    found = promote(slow, server, 1.5)
    assert re.search(r"latency: .*those of v1.*serving: v1", found.refusal)
    gates = {gate.gate: gate.passed for gate in found.gates}
    assert gates == {"skew": True, "golden": True, "golden_ids": True, "latency": False}
    assert read_serving(server.plan.repository).serving == "v1"


def test_a_promotion_returns_what_it_measured(
    server: Server, first: Promotion, make_bundle: MakeBundle
) -> None:
    done = promote(make_bundle("v4", mark=3.0), server, 1.5)
    assert done.serving.serving == "v4"
    latency = done.gates[-1]
    assert latency.passed
    assert latency.value is not None
    assert latency.limit is not None
    assert 0.0 < latency.value < latency.limit


@contextmanager
def busy_cores() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while 1: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_on_busy_cores_an_equal_bundle_passes_and_one_of_twice_the_cost_does_not(
    server: Server, first: Promotion, make_bundle: MakeBundle
) -> None:
    size = 500  # of a matrix that is multiplied: the cost grows with its third power
    folders = {}
    with one_server.connected(server.triton) as client:
        for version, work in (
            ("v5", size),
            ("v6", size),
            ("v7", round(size * 2 ** (1 / 3))),
        ):
            source = make_bundle(version, mark=1.0, work=work)
            card = bundle.verify(source)
            repository_writer.render(source, card, server.triton, server.features)
            folders[version] = repository_writer.step_folders(
                server.plan.repository, version
            )
            client.load_model(folders[version][0].name, client_timeout=180.0)
        with busy_cores():
            for other, passes in (("v6", True), ("v7", False)):
                pair = ("v5", folders["v5"]), (other, folders[other])
                gates = [latency_gate(client, *pair, max_ratio=1.5) for _ in range(5)]
                assert [gate.passed for gate in gates] == [passes] * 5, gates
                assert all("ms of CPU" in gate.note for gate in gates)


def test_steps_that_do_not_measure_their_cost_are_timed_until_they_answer(
    server: Server, first: Promotion, make_bundle: MakeBundle
) -> None:
    source = make_bundle("v8", mark=1.0)
    card = bundle.verify(source)
    repository_writer.render(source, card, server.triton, server.features)
    folders = repository_writer.step_folders(server.plan.repository, "v8")
    config = folders[0] / "config.pbtxt"  # as that of a GPU's first step
    name = model_names.SCORING_CPU.name
    output = rf'output {{\s*name: "{name}"[^}}]*}}'
    text, count = re.subn(output, "", config.read_text())
    assert count == 1
    config.write_text(text)
    with one_server.connected(server.triton) as client:
        client.load_model(folders[0].name, client_timeout=180.0)
        gate = latency_gate(client, ("v8", folders), ("v8", folders), max_ratio=100.0)
    assert gate.passed
    assert "CPU" not in gate.note


def test_only_clients_with_the_key_may_load_unload_or_list_models(
    server: Server, first: Promotion, tmp_path: Path
) -> None:
    canary = tmp_path / "triton"
    (canary / model_names.RANK_CLICKS_CANARY).mkdir(parents=True)
    for key in ("", "another key"):
        without_key = replace(server.triton, control_key=key)
        with one_server.connected(without_key) as client:
            for forbidden in (
                client.get_model_repository_index,
                partial(client.unload_model, model_names.RANK_CLICKS),
                partial(client.load_model, model_names.RANK_CLICKS),
            ):
                with pytest.raises(InferenceServerException, match="restricted"):
                    forbidden()
        (canary / "serving.json").write_text('{"canary": "v9"}')
        with pytest.raises(OutageError, match="restricted"):
            one_server.unload_canary(replace(without_key, repository=str(canary)))
    with RankClient(server.triton.grpc) as caller:  # ranking needs none
        assert caller.rank("u", [KNOWN_ITEM]).status == "cold_user"


def test_an_ensemble_that_cannot_be_restored_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    class Refusing:
        def load_model(self, name: str, **_: object) -> None:
            if name == model_names.RANK_CLICKS:
                raise InferenceServerException("busy")

    for name in model_names.ENSEMBLES:
        (tmp_path / name).mkdir()
    old = dict.fromkeys(model_names.ENSEMBLES, "old")
    restore(Refusing(), tmp_path, old)
    texts = [
        (tmp_path / name / "config.pbtxt").read_text() for name in model_names.ENSEMBLES
    ]
    assert set(texts) == {"old"}


def test_a_bundle_of_an_older_release_serves_what_it_has(tmp_path: Path) -> None:
    class Noting:
        def __init__(self) -> None:
            self.loaded: set[str] = set()

        def load_model(self, name: str, **_: object) -> None:
            self.loaded.add(name)

        def unload_model(self, name: str) -> None:
            self.loaded.remove(name)

    older = {model_names.RANK_CLICKS, model_names.SCORE_CLICKS}
    of_canary = {model_names.RANK_CLICKS_CANARY, model_names.CANARY_EXPERIMENT}
    now = set(model_names.ENSEMBLES) - of_canary
    for version, names in (("v1", older), ("v2", now)):
        kept = (
            tmp_path
            / model_names.step_name(model_names.CLICK_RANKER, version)
            / ENSEMBLE_FOLDER
        )
        kept.mkdir(parents=True)
        for name in names:
            (kept / f"{name}.pbtxt").write_text(version)
    client = Noting()
    switch(client, tmp_path, Serving(serving="v2", previous="v1"))
    assert client.loaded == now
    switch(client, tmp_path, Serving(serving="v1", previous="v2"))
    assert client.loaded == older
    assert {path.parent.name for path in tmp_path.glob("*/config.pbtxt")} == older
