"""Every request gets a probability and a status, whatever the user, items and store.

A real model in a real Triton with a real store, which the last test stops. The server
explores, which changes no probability.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from srp4ctr import processes
from srp4ctr.client.messages import Ranking, RankRequest
from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import broker
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.streams.events.schema import action_code, item_key
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.testing.ingest_events import past_activity
from srp4ctr.testing.serving_stack import ServingStack, item_ids, running_stack, user_ids
from srp4ctr.triton_repo.config import ExplorationConfig
from srp4ctr.triton_repo.model_names import CANDIDATE_STATES, ENCODE_USER, RANK_CLICKS
from tests.fuzzing import examples

pytestmark = [pytest.mark.stack, pytest.mark.triton]

LENGTH = 5
YEAR_MS = 365 * 86_400_000
USER, (ITEM, OTHER, *_) = user_ids()[0], item_ids()
PLAIN, NEW, UNKNOWN = item_ids()[-1], "an-item-of-today", "unknown-item"


@pytest.fixture(scope="module")
def stack() -> Iterator[ServingStack]:
    explores = ExplorationConfig(kind="epsilon_greedy", epsilon=0.5, depth=2)
    with running_stack(LENGTH, exploration=explores) as stack:
        _add_odd_ones(stack)
        with RankClient(stack.address) as client:
            while not _tables_know_all(client):
                time.sleep(0.2)
        yield stack


def _add_odd_ones(stack: ServingStack) -> None:
    """Store users and items that an ordinary stream does not have."""
    from srp4ctr.features.online.store import FeatureStoreSink

    now_ms = time.time_ns() // 1_000_000
    long_ago = SequenceElement(
        occurred_at=now_ms - YEAR_MS, item_key=item_key(ITEM), action=action_code("view")
    )
    rows = Rows()
    rows.users["only-shown"] = UserState(**asdict(past_activity(now_ms)))
    gone = sequence_of([long_ago])
    rows.users["long-gone"] = UserState(sequence=gone, version_us=now_ms * 1000)
    sink = FeatureStoreSink(stack.features)
    sink.write(rows)
    sink.write_profiles([_profile(PLAIN, {}), _profile(NEW, {"year": "1999"})])


def _profile(item: str, attributes: dict[str, Any]) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(item),
        item_id=item,
        attributes=attributes,
        updated_at_ms=time.time_ns() // 1_000_000,
    )


def _tables_know_all(client: RankClient) -> bool:
    """Return whether both processes of the step have read the odd items."""
    known = [client.rank(USER, [PLAIN, NEW]).item_statuses for _ in range(20)]
    return all(
        plain & ItemStatus.NO_ATTRIBUTES and not new & ItemStatus.NO_ATTRIBUTES
        for plain, new in known
    )


def rank(stack: ServingStack, user: str, items: list[str], **request: Any) -> Ranking:
    with RankClient(stack.address) as client:
        return client.rank(user, items, deadline_s=30.0, **request)


@pytest.mark.parametrize(
    ("user", "status"),
    [
        (USER, "ok"),
        ("nobody", "cold_user"),
        ("", "cold_user"),
        ("ユーザー", "cold_user"),
        ("only-shown", "empty_sequence"),
        ("long-gone", "stale_sequence"),
    ],
)
def test_every_user_gets_a_probability_and_a_status(
    stack: ServingStack, user: str, status: str
) -> None:
    ranking = rank(stack, user, [ITEM, UNKNOWN])
    assert ranking.status == status
    assert all(0.0 < score < 1.0 for score in ranking.scores)


@pytest.mark.parametrize(
    ("item", "bits"),
    [
        (ITEM, 0),
        (PLAIN, ItemStatus.NO_ATTRIBUTES),
        (NEW, ItemStatus.UNKNOWN_ITEM | ItemStatus.NO_ACTIVITY),
        (
            UNKNOWN,
            ItemStatus.UNKNOWN_ITEM | ItemStatus.NO_ATTRIBUTES | ItemStatus.NO_ACTIVITY,
        ),
        ("", ItemStatus.PADDING),
    ],
)
def test_every_item_gets_a_probability_and_bits(
    stack: ServingStack, item: str, bits: int
) -> None:
    ranking = rank(stack, USER, [ITEM, item])
    assert ranking.item_statuses[1] == bits
    assert math.isfinite(ranking.scores[1]) == (item != "")


def test_an_item_that_is_requested_twice_gets_one_score(stack: ServingStack) -> None:
    first, other, again = rank(stack, USER, [ITEM, OTHER, ITEM]).scores
    assert first == again != other


@pytest.mark.parametrize("context", [None, "", "{}", '{"page": "home"}'])
def test_a_context_may_be_missing(stack: ServingStack, context: str | None) -> None:
    (score,) = rank(stack, USER, [ITEM], context=context).scores
    assert 0.0 < score < 1.0


def test_a_score_depends_on_no_other_item_or_request(stack: ServingStack) -> None:
    now_ms = time.time_ns() // 1_000_000
    items = item_ids()[:60]
    requests = [
        RankRequest(user_id=user, item_ids=items[: 10 * count], request_time_ms=now_ms)
        for user, count in zip(user_ids(), range(1, 7), strict=False)
    ]
    with RankClient(stack.address) as client:
        together = client.rank_many(requests, deadline_s=30.0)
        for request, ranking in zip(requests, together, strict=True):
            for place in (0, len(request.item_ids) - 1):
                single = replace(request, item_ids=[request.item_ids[place]])
                (apart,) = client.rank_many([single], deadline_s=30.0)
                assert ranking.scores[place] == pytest.approx(apart.scores[0], abs=1e-6)


def test_the_top_is_explored_and_impressions_have_its_propensity(
    stack: ServingStack,
) -> None:
    items = [ITEM, OTHER, UNKNOWN, ""]
    rankings = [rank(stack, USER, items) for _ in range(40)]
    assert len({ranking.to_show() for ranking in rankings}) > 1
    best = items[int(np.nanargmax(rankings[0].scores))]
    for ranking in rankings:
        assert sorted(ranking.positions) == [0, 1, 2, 3]
        top, _, last = ranking.impressions("r", 1_700_000_000_000)
        expected = 0.5 + 0.5 / 3 if top.item_id == best else 0.5 / 3
        assert top.propensity == pytest.approx(expected)
        assert last.propensity == 1.0


def test_the_history_changes_scores(stack: ServingStack) -> None:
    assert rank(stack, USER, [ITEM]).scores != rank(stack, "nobody", [ITEM]).scores


def _outputs(stack: ServingStack, model: str, inputs: list[InferInput]) -> Any:
    with InferenceServerClient(stack.address) as client:
        return client.infer(model, inputs).as_numpy


@pytest.mark.parametrize(
    ("user", "status"), [(USER, "ok"), ("nobody", "cold_user"), ("long-gone", "stale_seq")]
)
def test_other_models_can_read_a_users_embeddings(
    stack: ServingStack, user: str, status: str
) -> None:
    at = np.array([[time.time_ns() // 1_000_000]])
    sent = [_texts("user_id", [[user]]), _input("request_time_ms", [1, 1], "INT64", at)]
    items = _texts("item_ids", [[ITEM, UNKNOWN, ""]])
    encoded = _outputs(stack, ENCODE_USER, sent)
    crossed = _outputs(stack, CANDIDATE_STATES, [*sent, items])
    single = _outputs(stack, CANDIDATE_STATES, [*sent, _texts("item_ids", [[ITEM]])])
    ranked = _outputs(stack, RANK_CLICKS, [*sent, items])
    queries, states = encoded("query_vectors"), crossed("candidate_states")
    assert queries.shape[0] == 1
    assert queries.shape[2:] == states.shape[2:]
    assert np.isfinite(queries).all()
    assert np.isfinite(states).all()
    np.testing.assert_allclose(crossed("query_vectors"), queries, atol=1e-5)
    np.testing.assert_allclose(single("candidate_states")[0, 0], states[0, 0], atol=1e-5)
    np.testing.assert_allclose(
        crossed("click_probability"), ranked("click_probability"), atol=1e-6
    )
    assert crossed("item_status").tolist() == ranked("item_status").tolist()
    for answer in (encoded, crossed):
        assert answer("status").item().decode().startswith(status)
        assert answer("model_version").item() == ranked("model_version").item()


def _input(name: str, shape: list[int], kind: str, array: np.ndarray) -> InferInput:
    given = InferInput(name, shape, kind)
    given.set_data_from_numpy(array)
    return given


def _texts(name: str, texts: list[list[Any]]) -> InferInput:
    array = np.array(texts, dtype=object)
    return _input(name, list(array.shape), "BYTES", array)


USER_INPUT, ITEM_INPUT = _texts("user_id", [["u"]]), _texts("item_ids", [["i"]])
SECONDS, MICROSECONDS = (
    _input("request_time_ms", [1, 1], "INT64", np.array([[17 * 10**digits]]))
    for digits in (8, 14)
)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([USER_INPUT], "item_ids"),
        ([ITEM_INPUT], "user_id"),
        ([USER_INPUT, _input("item_ids", [1, 1], "INT64", np.array([[5]]))], "item_ids"),
        ([USER_INPUT, _texts("item_ids", [["i"], ["i"]])], "batch"),
        ([_texts("user_id", [["u", "v"]]), ITEM_INPUT], "shape"),
        ([_texts("user_id", [["u"]] * 33), _texts("item_ids", [["i"]] * 33)], "batch-size"),
        ([USER_INPUT, ITEM_INPUT, _texts("colour", [["red"]])], "colour"),
        ([_texts("user_id", [[b"\xff"]]), ITEM_INPUT], "user_id is not UTF-8"),
        ([USER_INPUT, _texts("item_ids", [[b"\xff"]])], "item_ids is not UTF-8"),
        ([_texts("user_id", [["u" * 300]]), ITEM_INPUT], "300 letters; at most 256"),
        ([_texts("user_id", [["u" * 2_000_000]]), ITEM_INPUT], "at most 256"),
        ([USER_INPUT, ITEM_INPUT, _texts("context", [["[]"]])], "expected an object"),
        ([USER_INPUT, ITEM_INPUT, _texts("context", [["{"]])], "not JSON"),
        ([USER_INPUT, ITEM_INPUT, SECONDS], "is it in seconds"),
        ([USER_INPUT, ITEM_INPUT, MICROSECONDS], "is it in microseconds"),
    ],
)
def test_an_invalid_request_is_refused_with_an_error_message(
    stack: ServingStack, inputs: list[InferInput], sentence: str
) -> None:
    with (
        InferenceServerClient(stack.address) as client,
        pytest.raises(InferenceServerException, match=sentence) as error,
    ):
        client.infer(RANK_CLICKS, inputs)
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


SENT = st.binary(max_size=40) | st.sampled_from([b"x" * 9_000, b"\xff" * 9, b"\0", b""])


@settings(deadline=None, max_examples=examples(25))
@given(st.lists(st.lists(SENT, min_size=1, max_size=3), min_size=1, max_size=3), SENT, SENT)
def test_no_request_keeps_the_next_from_being_answered(
    stack: ServingStack, items: list[list[bytes]], user: bytes, context: bytes
) -> None:
    inputs = [
        _texts("user_id", [[user]] * len(items)),
        _texts("context", [[context]] * len(items)),
    ]
    longest = max(map(len, items))
    inputs.append(_texts("item_ids", [(row * longest)[:longest] for row in items]))
    with InferenceServerClient(stack.address) as client:
        try:
            client.infer(RANK_CLICKS, inputs, client_timeout=5.0)
        except InferenceServerException as refusal:
            refused = refusal.status()
        else:
            refused = "StatusCode.INVALID_ARGUMENT"
    assert refused == "StatusCode.INVALID_ARGUMENT"
    assert 0.0 < rank(stack, USER, [ITEM]).scores[0] < 1.0


def test_without_a_store_items_still_rank_until_it_returns(stack: ServingStack) -> None:
    folder = Path(stack.features.registry).parent
    processes.stop(stack.store, folder)
    ranking = rank(stack, USER, [ITEM, OTHER, UNKNOWN])
    assert ranking.status == "store_unavailable"
    assert all(0.0 < score < 1.0 for score in ranking.scores)
    assert ranking.item_statuses[0] == 0  # the item table is in memory
    broker.start_store(folder, int(stack.features.redis.rpartition(":")[2]), tied=True)
    while rank(stack, USER, [ITEM]).status == "store_unavailable":
        time.sleep(0.2)
