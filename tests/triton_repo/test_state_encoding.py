"""States that the stream encodes, met by a real tritonserver through a promotion."""

import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from srp4ctr.embedded import ports
from srp4ctr.features import bundle
from srp4ctr.features.stored_states import StateStore
from srp4ctr.streams.activity import Activity
from srp4ctr.streams.events import action_code, item_key
from srp4ctr.streams.sequences import BehaviorSequence, SequenceElement, sequence_of
from srp4ctr.streams.sink import Rows
from srp4ctr.triton_repo import promotion, state_encoding
from srp4ctr.triton_repo.client import RankClient
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.pbtxt import BEHAVIOR_ENCODER, CLICK_HEAD, CLICK_RANKER, step_name
from srp4ctr.triton_repo.state_encoding import EncodingSink, StateEncoder
from tests.triton_repo.bundles import KNOWN_ITEM, MakeBundle, a_check
from tests.triton_repo.conftest import Server

pytestmark = pytest.mark.triton
Promote = Callable[[], str]
VERSIONS = count(1)  # of this module's one server
IN_ORDER = 0.5  # nearly what the tiny head answers to an encoder of its own bundle


@pytest.fixture(scope="module")
def triton(server: Server) -> TritonConfig:
    return replace(server.triton, stored_states_s=60.0, kept_states_mb=0.0)


@pytest.fixture
def encoder(server: Server, triton: TritonConfig) -> StateEncoder:
    return StateEncoder(server.features, triton)


@pytest.fixture
def sink(server: Server, encoder: StateEncoder) -> Iterator[EncodingSink]:
    from srp4ctr.features.store import FeatureStoreSink

    yield EncodingSink(FeatureStoreSink(server.features), encoder)
    encoder.stop()


@pytest.fixture
def promote(server: Server, triton: TritonConfig, make_bundle: MakeBundle) -> Promote:
    def next_one() -> str:
        number = next(VERSIONS)
        source = make_bundle(f"v{number}", mark=float(number))
        promotion.promote(source, triton, server.features, a_check)
        return source.name

    return next_one


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
            assert ranking.scores[0] == pytest.approx(IN_ORDER, abs=0.01)
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
    promote: Promote,
    encoder: StateEncoder,
    sink: EncodingSink,
) -> None:
    old = promote()
    sink.write(acted("a", "b", "c"))
    assert encoded_of(server, old, ["a", "b", "c"]) == 3  # it is behind
    assert encoder.turn() == 3
    assert encoded_of(server, old, ["a", "b", "c", "a", "stranger"]) == 1
    new = promote()
    assert encoded_of(server, new, ["a", "b"]) == 2
    sink.write(acted("b"))
    assert encoder.turn() == 1
    assert encoded_of(server, new, ["a", "b"]) == 1
    promotion.rollback(triton)
    assert encoded_of(server, old, ["a", "b"]) == 1  # a's are still of the old


def forgotten(user: str) -> Rows:
    now_us = time.time_ns() // 1000
    row = BehaviorSequence(version_us=now_us, forgotten_at_ms=now_us // 1000)
    return Rows(sequences={user: row})


def test_who_is_forgotten_has_no_states_when_that_is_stored(
    server: Server,
    promote: Promote,
    encoder: StateEncoder,
    sink: EncodingSink,
) -> None:
    promote()
    store = StateStore(server.features, 5.0)
    sink.write(acted("leaves"))
    encoder.turn()
    assert store.read(["leaves"]) != [None]
    sink.write(forgotten("leaves"))
    assert store.read(["leaves"]) == [None]
    assert encoder.turn() == 0
    sink.write(acted("comes-back"))
    encoder.turn()
    came_since = acted("comes-back").sequences["comes-back"]
    wished = msgspec.structs.replace(came_since, forgotten_at_ms=1)
    sink.write(Rows(sequences={"comes-back": wished}))
    assert store.read(["comes-back"]) == [None]
    assert encoder.turn() == 1
    assert store.read(["comes-back"]) != [None]


def test_a_turn_that_has_read_a_history_does_not_undo_a_wish(
    server: Server,
    promote: Promote,
    encoder: StateEncoder,
    sink: EncodingSink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promote()
    reached, goes_on = threading.Event(), threading.Event()
    encode = state_encoding._value

    def slowly(*given: Any) -> bytes | None:
        reached.set()
        assert goes_on.wait(30.0)
        return encode(*given)

    monkeypatch.setattr(state_encoding, "_value", slowly)
    sink.write(acted("leaves-late"))
    turning = threading.Thread(target=encoder.turn)
    turning.start()
    assert reached.wait(30.0)
    wishing = threading.Thread(target=sink.write, args=(forgotten("leaves-late"),))
    wishing.start()
    time.sleep(0.3)
    goes_on.set()
    turning.join(30.0)
    wishing.join(30.0)
    assert StateStore(server.features, 5.0).read(["leaves-late"]) == [None]


def test_a_version_that_is_rendered_anew_is_opened_anew(
    triton: TritonConfig,
    promote: Promote,
    encoder: StateEncoder,
    sink: EncodingSink,
) -> None:
    version = promote()
    sink.write(acted("a"))
    encoder.turn()
    before, step = encoder._opened, step_name(CLICK_RANKER, version)
    file = Path(triton.repository) / step / bundle.MANIFEST_FILE
    file.write_bytes(file.read_bytes() + b"\n")
    sink.write(acted("a"))
    encoder.turn()
    assert encoder._opened is not before


def test_a_thread_does_it_with_patience_and_ends(
    server: Server,
    promote: Promote,
    encoder: StateEncoder,
    sink: EncodingSink,
) -> None:
    promote()
    thread = encoder.start()
    sink.write(acted("by-thread"))
    store, deadline = StateStore(server.features, 5.0), time.monotonic() + 30.0
    while store.read(["by-thread"]) == [None] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert store.read(["by-thread"]) != [None]
    assert thread.native_id is not None
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == min(own + 10, 19)
    sink.write(acted(*(f"many-{number}" for number in range(500))))
    encoder.stop()
    thread.join(30.0)
    assert not thread.is_alive()


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


def test_nothing_is_encoded_before_a_bundle_serves_and_that_is_said_once(
    server: Server,
    triton: TritonConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = StateEncoder(server.features, replace(triton, repository=str(tmp_path)))
    for _ in range(3):
        encoder.moved(f"u{number}" for number in range(100))
        encoder.turn()
        assert not encoder._waiting
    assert caplog.text.count("no bundle serves") == 1


def test_a_store_that_is_away_loses_nobody(
    server: Server, triton: TritonConfig, promote: Promote
) -> None:
    promote()
    with ports.reserved_ports(1) as (nowhere,):
        away = replace(server.features, redis=f"{ports.HOST}:{nowhere}")
    encoder = StateEncoder(away, triton)
    encoder.moved(["a", "b"])
    with pytest.raises(ConnectionError):
        encoder.turn()
    encoder.moved(["c"])
    assert list(encoder._waiting) == ["a", "b", "c"]
    encoder.stop()
