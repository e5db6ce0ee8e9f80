"""Items that a real tritonserver recommends by the real store."""

import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.client.messages import Ranking
from srp4ctr.client.rank_client import RankClient
from srp4ctr.errors import MistakeError
from srp4ctr.features.online.store import FeatureStoreSink
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.streams.events.schema import AVAILABLE, NOT_AVAILABLE, item_key
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState
from tests.triton_repo import bundles
from tests.triton_repo.bundles import MakeBundle
from tests.triton_repo.conftest import Server

pytestmark = pytest.mark.triton

VERSIONS = iter(range(1, 1000))
GENRES = ("drama", "war")
NOW_MS = time.time_ns() // 1_000_000
PATIENCE_S = 60.0
HOT = Activity(
    impressions=(9.0,) * 4,
    clicks=(8.0,) * 4,
    counted_at_ms=NOW_MS,
    first_seen_ms=NOW_MS,
    version_us=NOW_MS * 1000,
)


def names_of(version: str) -> list[str]:
    return [f"{version}-item-{number}" for number in range(30)]


@dataclass(frozen=True)
class Recommending:
    """A bundle that serves, and its items from the lowest row up."""

    version: str
    source: Path
    items: list[str]


def promoted(server: Server, make_bundle: MakeBundle) -> Recommending:
    version = f"v{next(VERSIONS)}"
    names = names_of(version)
    profiles = [{"genre": genre} for genre in GENRES for _ in range(9)]
    words = vocabulary.build({item_key(name): 9 for name in names}, profiles)
    source = make_bundle(version, mark=float(version[1:]), words=words, names=names)
    bundles.promote(source, server.triton, server.features)
    by_key = sorted(names, key=item_key)  # as the vocabulary's rows
    return Recommending(version, source, by_key)


@pytest.fixture
def serving(server: Server, make_bundle: MakeBundle) -> Recommending:
    return promoted(server, make_bundle)


def profile(name: str, at_ms: int, **attributes: str) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(name), item_id=name, attributes=attributes, updated_at_ms=at_ms
    )


def test_an_empty_store_answers_with_what_is_popular(
    server: Server, serving: Recommending
) -> None:
    with RankClient(server.triton.grpc) as client:
        answer = client.recommend("nobody", 5, deadline_s=30.0)
        more = client.recommend("nobody", 7, deadline_s=30.0)
    # Training counted the highest rows most, and the click head ranks by rows.
    assert answer.item_ids == tuple(serving.items[:-6:-1])
    assert answer.sources == ("popular",) * 5
    assert (answer.model_version, answer.status) == (serving.version, "cold_user")
    assert list(answer.scores) == sorted(answer.scores, reverse=True)
    assert not any(map(math.isnan, answer.scores))
    assert answer.to_show() == answer.item_ids
    assert more.item_ids[:5] == answer.item_ids
    shown = answer.impressions("r1", NOW_MS)
    assert [each.item_id for each in shown] == list(answer.item_ids)


def test_a_history_brings_its_next_items_without_those_that_are_gone(
    server: Server, serving: Recommending
) -> None:
    sink = FeatureStoreSink(server.features)
    liked, items = serving.items[10], serving.items
    history = [SequenceElement(occurred_at=NOW_MS, item_key=item_key(liked), action=1)]
    user = UserState(sequence=sequence_of(history), version_us=NOW_MS * 1000)
    sink.write(Rows(users={"ann": user}))
    sink.write_profiles(
        [profile(n, NOW_MS, genre=GENRES[i % 2]) for i, n in enumerate(items)]
    )
    sink.write(Rows(shares={(item_key(items[0]), 0): HOT}))
    with RankClient(server.triton.grpc) as client:
        until = time.monotonic() + PATIENCE_S
        while True:  # the table and the catalogue follow the store in seconds
            found = client.recommend(
                "ann", 30, where={"genre": "drama"}, exclude="nothing", deadline_s=30.0
            )
            of = dict(zip(found.item_ids, found.sources, strict=True))
            if {*of} == {*items[::2]} and of[items[0]] == "popular":
                break
            assert time.monotonic() < until, found
            time.sleep(0.2)
        assert found.status == "ok"
        assert of[liked] == "model"
        everything = client.recommend("ann", 30, deadline_s=30.0)
        assert liked not in everything.item_ids
        assert {"model", "popular"} <= set(everything.sources)
        sink.write_profiles([profile(items[11], NOW_MS + 1, **{AVAILABLE: NOT_AVAILABLE})])
        while items[11] in client.recommend("ann", 30, deadline_s=30.0).item_ids:
            assert time.monotonic() < until + PATIENCE_S
            time.sleep(0.1)
        ranked = client.rank("ann", [items[11], items[12]], deadline_s=30.0)
    assert [status & ItemStatus.UNAVAILABLE for status in ranked.item_statuses] == [8, 0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"where": {"genre": "dramma"}}, "too few items have genre"),
        ({"where": {"colour": "red"}}, "cannot be filtered by 'colour'; by: genre"),
        ({"exclude": "all"}, "filters"),
        ({"count": 0}, "1 to 200 items"),
        ({"count": 201}, "1 to 200 items"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(
    server: Server, serving: Recommending, options: dict[str, object], why: str
) -> None:
    with (
        RankClient(server.triton.grpc) as client,
        pytest.raises(MistakeError, match=why),
    ):
        client.recommend("ann", **{"count": 3, "deadline_s": 30.0, **options})  # type: ignore[arg-type]


def test_a_bundle_without_the_files_says_to_refresh(
    server: Server, make_bundle: MakeBundle
) -> None:
    version = f"v{next(VERSIONS)}"
    old = make_bundle(version, mark=float(version[1:]))
    bundles.promote(old, server.triton, server.features)
    with (
        RankClient(server.triton.grpc) as client,
        pytest.raises(MistakeError, match=f"{version} cannot recommend.*model refresh"),
    ):
        client.recommend("ann", deadline_s=30.0)


def test_retrieval_and_ranking_are_of_one_bundle_while_bundles_change(
    server: Server, serving: Recommending, make_bundle: MakeBundle
) -> None:
    answers: list[Ranking] = []
    stop = threading.Event()

    def call() -> None:
        with RankClient(server.triton.grpc) as client:
            while not stop.is_set():
                answers.append(client.recommend(f"u{len(answers)}", 9, deadline_s=30.0))

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(3):
            last = promoted(server, make_bundle)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    versions = {each.model_version for each in answers}
    assert {serving.version, last.version} <= versions
    for answer in answers:
        assert {n.partition("-")[0] for n in answer.item_ids} == {answer.model_version}
        # The head's score of a row is .5 only with the states of the same bundle.
        assert np.abs(np.array(answer.scores) - 0.5).max() < 0.1
