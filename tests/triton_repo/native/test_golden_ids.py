"""Golden requests by ids, while other users are served, and what stays of them."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from tritonclient.grpc import InferenceServerClient

from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import GOLDEN_USERS, UserEvent
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.triton_repo.deployment import golden_ids, promotion
from tests.builders import a_click, an_impression
from tests.features.stored import fold_into
from tests.triton_repo.bundles import STORE_GATE
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import ITEMS, WORDS
from tests.triton_repo.real_bundles import a_bundle
from tests.triton_repo.tiny_graphs import L

pytestmark = [pytest.mark.stack, pytest.mark.triton]


@contextmanager
def changing_counters(server: Server) -> Iterator[list[int]]:
    """Count impressions and clicks of the items meanwhile; yield how many there were."""
    from srp4ctr.features.online.store import FeatureStoreSink

    sink, stopped, count = FeatureStoreSink(server.features), threading.Event(), [0]
    state = PartitionState(1, 0, StreamConfig(sequence_length=L))

    def work() -> None:
        for number in itertools.count():
            at_ms, item = time.time_ns() // 1_000_000, ITEMS[number % 4]
            names = {"user_id": f"other-{number % 3}", "request_id": f"r{number}"}
            events: list[UserEvent] = [
                an_impression(item, at_ms=at_ms, **names),
                a_click(item, at_ms=at_ms + 1, **names),
            ]
            fold_into(sink, events[: 1 + number % 2], state, 2 * number)
            count[0] = number
            if stopped.wait(0.02):
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield count
    finally:
        stopped.set()
        thread.join()


def golden_keys(server: Server) -> list[bytes]:
    """Return the store's keys of golden users."""
    host, _, port = server.features.redis.partition(":")
    with Redis(host=host, port=int(port)) as store:
        return [key for key in store.scan_iter() if GOLDEN_USERS.encode() in key]


def test_a_version_is_promoted_while_items_are_shown_and_leaves_no_user(
    server: Server, client: InferenceServerClient, tmp_path: Path
) -> None:
    triton = replace(server.triton, max_candidates=12)
    with changing_counters(server) as count:
        for version in ("v3", "v4"):
            source = a_bundle(tmp_path / version, WORDS)
            done = promotion.promote(source, triton, server.features, STORE_GATE)
            gates = {gate.gate: gate.passed for gate in done.gates}
            assert not done.refusal
            assert gates[golden_ids.GATE]
    assert count[0] > 50
    assert golden_keys(server) == []


def test_what_both_steps_read_wrongly_is_refused(
    server: Server,
    client: InferenceServerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No comparison of the two would see it: here the other side is wrong instead."""
    right = Vocabulary.item_rows

    def wrong(words: Vocabulary, keys: Any) -> Any:
        rows = right(words, keys)
        return np.where(words.is_known(rows), rows ^ 1, rows)

    monkeypatch.setattr(Vocabulary, "item_rows", wrong)
    source = a_bundle(tmp_path / "v5", WORDS)
    done = promotion.promote(source, server.triton, server.features, STORE_GATE)
    gates = {gate.gate: gate for gate in done.gates}
    assert not gates[golden_ids.GATE].passed
    assert "28 of 28 answers" in gates[golden_ids.GATE].note
    assert golden_keys(server) == []
