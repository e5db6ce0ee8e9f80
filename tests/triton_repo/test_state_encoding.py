"""States that the stream encodes, met by a real tritonserver through a promotion."""

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from features.stored_states import StateStore
from local import ports
from streams.activity import Activity
from streams.events import action_code, item_key
from streams.sequences import BehaviorSequence, SequenceElement, sequence_of
from streams.sink import Rows
from tests.triton_repo.bundles import KNOWN_ITEM, MakeBundle, a_check
from tests.triton_repo.conftest import Server
from triton_repo import promotion, state_encoding
from triton_repo.client import RankClient
from triton_repo.config import TritonConfig
from triton_repo.pbtxt import BEHAVIOR_ENCODER, CLICK_HEAD
from triton_repo.state_encoding import EncodingSink, StateEncoder

pytestmark = pytest.mark.triton
NEVER = 0.5  # what the tiny head answers, nearly, where encoder and head are of one bundle


@pytest.fixture(scope="module")
def triton(server: Server) -> TritonConfig:
    return replace(server.triton, stored_states_s=60.0, kept_states_mb=0.0)


@pytest.fixture
def encoder(server: Server, triton: TritonConfig) -> StateEncoder:
    return StateEncoder(server.features, triton)


@pytest.fixture
def sink(server: Server, encoder: StateEncoder) -> Iterator[EncodingSink]:
    from features.store import FeatureStoreSink

    yield EncodingSink(FeatureStoreSink(server.features), encoder)
    encoder.stop()


def promote(
    number: int, server: Server, triton: TritonConfig, make_bundle: MakeBundle
) -> None:
    source = make_bundle(f"v{number}", mark=float(number))
    promotion.promote(source, triton, server.features, a_check)


def acted(*users: str) -> Rows:
    now_ms = time.time_ns() // 1_000_000
    element = SequenceElement(
        occurred_at=now_ms, item_key=item_key(KNOWN_ITEM), action=action_code("view")
    )
    row = sequence_of([element], version_us=now_ms * 1000)
    return Rows(sequences=dict.fromkeys(users, row))


def part_runs(server: Server, part: str, version: str) -> int:
    page = f"http://{ports.HOST}:{server.plan.metrics_port}/metrics"
    with urllib.request.urlopen(page) as opened:
        text = opened.read().decode()
    found = re.findall(rf'srp4ctr_part_runs{{model="{part}_{version}"[^}}]*}} (\d+)', text)
    return sum(map(int, found))


def encoded_of(server: Server, version: str, users: list[str]) -> int:
    """Rank for each of ``users``; return how many histories were encoded for that."""
    time.sleep(1.5)  # what was done before is told by now
    parts = (CLICK_HEAD, BEHAVIOR_ENCODER)
    before = [part_runs(server, part, version) for part in parts]
    with RankClient(server.triton.grpc) as client:
        for user in users:
            ranking = client.rank(user, [KNOWN_ITEM], deadline_s=30.0)
            assert ranking.model_version == version
            assert ranking.scores[0] == pytest.approx(NEVER, abs=0.01)
    deadline = time.monotonic() + 10.0
    while True:
        ran = [part_runs(server, part, version) for part in parts]
        head, encoder = np.subtract(ran, before)
        if head == len(users) or time.monotonic() > deadline:
            assert head == len(users)
            return int(encoder)
        time.sleep(0.1)


def test_requests_encode_no_history_that_the_stream_has_until_the_model_changes(
    server: Server,
    triton: TritonConfig,
    make_bundle: MakeBundle,
    encoder: StateEncoder,
    sink: EncodingSink,
) -> None:
    promote(1, server, triton, make_bundle)
    sink.write(acted("a", "b", "c"))
    assert encoded_of(server, "v1", ["a", "b", "c"]) == 3  # it is behind
    assert encoder.turn() == 3
    assert encoded_of(server, "v1", ["a", "b", "c", "a", "stranger"]) == 1
    promote(2, server, triton, make_bundle)
    assert encoded_of(server, "v2", ["a", "b"]) == 2
    sink.write(acted("b"))
    assert encoder.turn() == 1
    assert encoded_of(server, "v2", ["a", "b"]) == 1
    promotion.rollback(triton)
    assert encoded_of(server, "v1", ["a", "b"]) == 1  # a's are still of v1


def test_who_is_forgotten_has_no_states(
    server: Server,
    triton: TritonConfig,
    make_bundle: MakeBundle,
    encoder: StateEncoder,
    sink: EncodingSink,
) -> None:
    promote(3, server, triton, make_bundle)
    store = StateStore(server.features, 5.0)
    sink.write(acted("leaves"))
    encoder.turn()
    assert store.read(["leaves"]) != [None]
    now_us = time.time_ns() // 1000
    nothing = BehaviorSequence(version_us=now_us, forgotten_at_ms=now_us // 1000)
    sink.write(Rows(sequences={"leaves": nothing}))
    encoder.turn()
    assert store.read(["leaves"]) == [None]


def test_counters_alone_move_no_history(encoder: StateEncoder, sink: EncodingSink) -> None:
    now_us = time.time_ns() // 1000
    sink.write(Rows(activities={"shown": Activity(version_us=now_us)}))
    assert encoder.turn() == 0


def test_of_too_many_the_longest_waiting_go_and_who_moves_again_waits_anew(
    encoder: StateEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_encoding, "MAX_WAITING", 3)
    encoder.moved(["a", "b", "c"])
    encoder.moved(["a", "d"])
    assert list(encoder._waiting) == ["c", "a", "d"]


def test_nothing_is_encoded_before_a_bundle_serves(
    server: Server, triton: TritonConfig, tmp_path: pytest.TempPathFactory
) -> None:
    encoder = StateEncoder(server.features, replace(triton, repository=str(tmp_path)))
    encoder.moved(["a"])
    assert encoder.turn() == 1
    assert encoder.turn() == 0


def test_a_store_that_is_away_loses_nobody(
    server: Server, triton: TritonConfig, make_bundle: MakeBundle
) -> None:
    promote(4, server, triton, make_bundle)
    with ports.reserved_ports(1) as (nowhere,):
        away = replace(server.features, redis=f"{ports.HOST}:{nowhere}")
    encoder = StateEncoder(away, triton)
    encoder.moved(["a", "b"])
    with pytest.raises(ConnectionError):
        encoder.turn()
    encoder.moved(["c"])
    assert list(encoder._waiting) == ["a", "b", "c"]
