"""Rankings, and the errors of a client without a server."""

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from tritonclient.utils import InferenceServerException

from srp4ctr.client import codec, rank_client
from srp4ctr.client.assignment import Assignment
from srp4ctr.client.messages import Ranking, RankRequest, RecommendRequest
from srp4ctr.client.rank_client import RankClient
from srp4ctr.errors import MistakeError
from srp4ctr.features.columns import number_columns
from srp4ctr.features.tensors.caller_numbers import (
    list_columns,
    logged_columns,
    with_from_last,
)
from srp4ctr.streams.events.codec import decode, encode
from srp4ctr.streams.events.experiments import Experiment
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.streams.events.schema import json_text
from srp4ctr.triton_repo.model_names import RANK_CLICKS_CANARY

RETRIES = ("srp4ctr_retries_total", {"operation": "rank"})


def a_ranking(scores: tuple[float, ...]) -> Ranking:
    return Ranking(
        user_id="u",
        item_ids=tuple("abcdef"[: len(scores)]),
        scores=scores,
        item_statuses=(0,) * len(scores),
        propensities=(1.0,) * len(scores),
        positions=tuple(np.argsort(np.argsort(-np.array(scores), kind="stable")).tolist()),
        model_version="v1",
        status="ok",
        feature_version="-",
    )


def retries() -> float:
    return REGISTRY.get_sample_value(*RETRIES) or 0.0


def test_items_are_shown_by_their_positions() -> None:
    explored = replace(a_ranking((0.1, 0.3, 0.2)), positions=(1, 2, 0))
    assert explored.to_show() == ("c", "a", "b")


def test_the_best_item_is_first_and_equals_keep_their_order() -> None:
    assert a_ranking((0.1, 0.3, 0.3, 0.2)).to_show() == ("b", "c", "d", "a")


def test_padding_is_not_ranked() -> None:
    assert a_ranking((0.1, math.nan, 0.3)).to_show() == ("c", "a")


def test_shown_items_become_impressions_with_all_that_labels_need() -> None:
    ranking = a_ranking((0.1, 0.3, 0.2))
    first, second, third = ranking.impressions("r", 1_700_000_000_000)
    assert [each.item_id for each in (first, second, third)] == ["b", "c", "a"]
    assert (first.position, first.score, first.propensity) == (0, 0.3, 1.0)
    assert (third.position, third.score, third.model_version) == (2, 0.1, "v1")
    [own] = ranking.impressions("r", 1_700_000_000_000, ["c"], {"page": "home"})
    assert (own.item_id, own.user_id, own.score) == ("c", "u", 0.2)
    assert own.propensity is None  # another policy's order
    assigned = replace(ranking, experiment="v2:v1:0.1", arm="v2")
    [one, *_] = assigned.impressions("r", 1_700_000_000_000)
    assert (one.experiment, one.arm, one.model_version) == ("v2:v1:0.1", "v2", "v1")
    [same, other] = ranking.impressions("r", 1_700_000_000_000, ["b", "a"])
    assert (same.propensity, other.propensity) == (1.0, None)
    for event in (first, own):
        assert decode(encode(event), 1_700_000_000_001) == event


def test_impressions_of_a_request_with_a_long_id_are_events() -> None:
    for event in a_ranking((0.1, 0.3)).impressions("r" * 256, 1_700_000_000_000):
        assert decode(encode(event), 1_700_000_000_001) == event


def test_the_user_s_offset_is_in_the_context_of_request_and_impressions() -> None:
    request = RankRequest(
        user_id="u1", item_ids=["a"], context='{"page": "home"}', utc_offset_minutes=-300
    )
    sent = codec.request_tensors([request, replace(request, context=None)])["context"]
    offset = {"utc_offset_minutes": "-300"}
    assert [json.loads(text) for (text,) in sent] == [{"page": "home"} | offset, offset]
    shown = replace(a_ranking((0.5,)), utc_offset_minutes=-300).impressions("r1", 5)
    assert shown[0].context == offset


PRICED = RankRequest(
    user_id="u1", item_ids=["a", "b", "c"], numbers={"price": [80.1, None, 60]}
)
NAMES = [name.encode() for name in number_columns(["price"])]


def test_numbers_are_sent_by_name_with_nan_for_those_that_are_missing() -> None:
    other = RankRequest(user_id="u2", item_ids=["a"], numbers={"order": [0]})
    sent = codec.request_tensors([PRICED, other])
    assert sent["candidate_number_names"].tolist() == [["order", "price"]] * 2
    numbers, none = sent["candidate_numbers"], [math.nan] * 3
    assert (str(numbers.dtype), numbers.shape) == ("float32", (2, 3, 2))
    np.testing.assert_array_equal(
        numbers[0, :, 1], np.array([80.1, math.nan, 60], np.float32)
    )
    np.testing.assert_array_equal(numbers[0, :, 0], none)
    np.testing.assert_array_equal(numbers[1, :, 0], [0, math.nan, math.nan])
    plain = codec.request_tensors([replace(PRICED, numbers={})])
    assert plain.keys() == {"user_id", "item_ids"}


def an_answer(columns: list[list[float]] | None) -> dict[str, Any]:
    """Return the outputs for PRICED, with number columns if the bundle has any."""
    texts = {"model_version": b"v1", "status": b"ok", "feature_version": b"-"}
    answer: dict[str, Any] = {n: np.array([[t]], object) for n, t in texts.items()}
    answer["calibrated"] = np.ones((1, 1), np.bool_)
    by_item = ("click_probability", "item_status", "propensity", "position")
    answer |= {name: np.ones((1, 3)) for name in by_item}
    if columns is not None:
        answer["number_columns"] = np.array([columns], np.float32)
        answer["number_column_names"] = np.array([NAMES], object)
    return answer


def test_impressions_carry_the_columns_that_the_answer_returned() -> None:
    columns = [
        [80.1, 0.5, 10.0, 20.5, 0.0],
        [0.0, 0.5, 0.0, 0.0, 1.0],
        [60.0, 0.0, -10.0, 0.0, 0.0],
    ]
    [ranking] = codec.rankings([PRICED], an_answer(columns).get)
    expected = {"price": 80.1, "price_rank": 0.5, "price_difference": 10.0}
    expected["price_from_last"] = 20.5
    assert ranking.numbers_of("a") == expected
    assert ranking.numbers_of("b") == {}
    first, second, _ = ranking.impressions("r", 1_700_000_000_000, ["a", "b", "c"])
    assert (first.numbers, second.numbers) == (expected, None)
    assert decode(encode(first), 1_700_000_000_001) == first


def test_training_reads_the_columns_as_they_were_served() -> None:
    """To the last bit, though a caller shows fewer items than it ranks."""
    rng = np.random.default_rng(6)
    prices = [*rng.lognormal(4, 1, 20).tolist(), None]
    items = [f"i{n}" for n in range(len(prices))]
    request = RankRequest(user_id="u1", item_ids=items, numbers={"price": prices})
    sent = codec.request_tensors([request])["candidate_numbers"]
    listed = list_columns(sent, np.arange(1, len(items) + 1)[None])
    served = with_from_last(listed, rng.random((1, len(items))))
    answer = an_answer(served[0].tolist())
    by_item = ("click_probability", "item_status", "propensity", "position")
    answer |= {name: np.ones((1, len(items))) for name in by_item}
    [ranking] = codec.rankings([request], answer.get)
    shown = ranking.impressions("r", 1_700_000_000_000, ["i20", "i3", "i0", "i7"])
    texts = [json_text(each.numbers) if each.numbers else None for each in shown]
    read = logged_columns(texts, ["price"], np.zeros(4, np.int64))
    read = with_from_last(read, np.zeros(4))
    np.testing.assert_array_equal(read, served[0, [20, 3, 0, 7]])


def test_without_declared_numbers_impressions_carry_what_was_sent() -> None:
    [ranking] = codec.rankings([PRICED], an_answer(None).get)
    assert ranking.numbers_of("a") == {"price": 80.1}
    [plain] = codec.rankings([replace(PRICED, numbers={})], an_answer(None).get)
    assert plain.numbers == {}
    assert plain.impressions("r", 5, ["a"])[0].numbers is None


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"price": [1, 2]}, "'price' has 2 of 3 items"),
        ({"price": [1, "2", 3]}, "numbers or None"),
        ({"price": [1, math.inf, 3]}, "infinite"),
    ],
)
def test_numbers_that_are_none_are_a_mistake(numbers: Any, message: str) -> None:
    with pytest.raises(MistakeError, match=message):
        replace(PRICED, numbers=numbers)


def test_no_server_is_a_connection_error_at_the_deadline() -> None:
    before = retries()
    with (
        RankClient("127.0.0.1:1") as client,
        pytest.raises(ConnectionError, match="UNAVAILABLE"),
    ):
        client.rank("u", ["i"], deadline_s=0.3)
    assert retries() > before  # it was tried until the deadline


def test_no_request_is_no_call() -> None:
    with RankClient("127.0.0.1:1") as client:
        assert client.rank_many([]) == ()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"item_ids": "50"}, "item_ids is '50'; a list of texts"),
        ({"item_ids": None}, "item_ids is no list of texts"),
        ({"item_ids": ["50", 181]}, "item_ids is no list of texts: .* int found"),
        ({"user_id": None}, "user_id is None; a text"),
        ({"user_id": 42}, "user_id is 42; a text"),
        ({"context": {"page": "home"}}, "context is {'page': 'home'}; a flat JSON object"),
        ({"request_id": 7}, "request_id is 7; a text"),
        ({"deadline_s": math.inf}, "deadline_s is inf; at most 86400, a day"),
        ({"deadline_s": math.nan}, "deadline_s is nan"),
    ],
)
def test_what_is_no_text_and_a_deadline_without_end_are_mistakes(
    request_: dict[str, Any], message: str
) -> None:
    """Triton's client would rank the users None and 42."""
    right: dict[str, Any] = {"user_id": "u", "item_ids": ["i"], "deadline_s": 0.1}
    with RankClient("127.0.0.1:1") as client:
        with pytest.raises(MistakeError, match=message):
            client.rank(**(right | request_))
        if "item_ids" not in request_:
            with pytest.raises(MistakeError, match=message):
                client.recommend(**({"user_id": "u"} | request_))


class Leaving(GRPCInferenceServiceServicer):  # type: ignore[misc]  # tritonclient is untyped
    """Cancels every call, as a server does that shuts down."""

    calls = 0

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> None:
        self.calls += 1
        context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")


def test_a_call_that_a_leaving_server_cancels_is_retried() -> None:
    server, leaving = grpc.server(ThreadPoolExecutor(1)), Leaving()
    add_GRPCInferenceServiceServicer_to_server(leaving, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with (
            RankClient(address) as client,
            pytest.raises(ConnectionError, match="CANCELLED"),
        ):
            client.rank("u", ["i"], deadline_s=1.0)
        assert leaving.calls > 1
    finally:
        server.stop(None).wait()


class Recorded(RankClient):
    """Keeps the bytes for the server, which is not there."""

    sent: bytes = b""

    def _call(self, model: str, inputs: Sequence[Any], timeout_s: float) -> Any:
        self.sent = b"".join(each._get_content() or b"" for each in inputs)
        raise InferenceServerException("nobody is there", "StatusCode.INVALID_ARGUMENT")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_with_pseudonyms_no_users_id_is_sent(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assign(monkeypatch, share)
    names = Pseudonyms(b"k" * 32)
    with Recorded("127.0.0.1:1", pseudonyms=names) as client:
        with pytest.raises(ValueError, match="nobody is there"):
            client.rank("ann", ["i1"])
        assert names.of("ann").encode() in client.sent
        assert b"ann" not in client.sent


class LateCanary(RankClient):
    """Its canary answers nothing, and its ``rank_clicks`` everything."""

    to_canary = 0

    def _call(self, model: str, inputs: Sequence[Any], timeout_s: float) -> Any:
        if model == RANK_CLICKS_CANARY:
            self.to_canary += 1
            raise InferenceServerException("too late", "StatusCode.DEADLINE_EXCEEDED")
        texts = {"model_version": b"v1", "status": b"ok", "feature_version": b"-"}
        answer: dict[str, np.ndarray] = {
            name: np.array([[text]], dtype=object) for name, text in texts.items()
        }
        by_item = ("click_probability", "item_status", "propensity", "position")
        answer |= {name: np.zeros((1, 1)) for name in (*by_item, "calibrated")}
        return SimpleNamespace(as_numpy=answer.get)


def test_a_late_canary_fails_none_of_its_users_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assign(monkeypatch, 1.0)
    with LateCanary("127.0.0.1:1") as client:
        for _ in range(50):  # more than its budget of retries
            ranking = client.rank("u", ["i"])
            assert (ranking.model_version, ranking.arm) == ("v1", "v2")
        assert client.to_canary == 1  # then it rests


def assign(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let the server, which is not there, assign ``share`` of the users to v2."""
    experiment = Experiment("v2", "v1", share) if share else None
    monkeypatch.setattr(Assignment, "current", lambda self, left_s: experiment)


class Answers:
    """A client of Triton that gives its answers one after another."""

    def __init__(self, *answers: str | InferenceServerException) -> None:
        self.answers = list(answers)

    def infer(self, model: str, inputs: Any, client_timeout: float) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, InferenceServerException):
            raise answer
        found = np.array([[answer.encode()]], dtype=object)
        return SimpleNamespace(as_numpy={"experiment": found}.get)


GONE = InferenceServerException("unknown model", "StatusCode.NOT_FOUND")
AWAY = InferenceServerException("failed to connect", "StatusCode.UNAVAILABLE")


@pytest.mark.parametrize(
    ("second", "canary"), [("v3:v1:0.2", "v3"), ("", None), (GONE, None), (AWAY, "v2")]
)
def test_the_experiment_is_the_servers_and_holds_while_it_is_away(
    second: Any, canary: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    server = Answers("v2:v1:0.1", second)
    assigned = Assignment(server)
    assert assigned.current(0.1) == Experiment("v2", "v1", 0.1)
    assert assigned.current(0.1) == Experiment("v2", "v1", 0.1)  # without a call
    now_s += 10.0
    found = assigned.current(0.1)
    assert (found.canary if found else None) == canary
    assert server.answers == []


def test_only_the_versions_seen_last_keep_their_series() -> None:
    def versions() -> set[str]:
        (metric,) = rank_client.REQUESTS.collect()
        return {sample.labels["model_version"] for sample in metric.samples}

    rank_client.REQUESTS.labels("", "failed").inc()
    for number in range(50):
        rank_client._count("v-serving", "ok")
        rank_client._count(f"v-{number}", "ok")
        rank_client._count(f"v-{number}", "cold_user")
    assert len(versions() - {""}) == 8
    assert {"", "v-serving", "v-49", "v-43"} <= versions()


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_ranking_says_whether_its_scores_are_probabilities(calibrated: bool) -> None:
    outputs: dict[str, Any] = {
        name: np.zeros((1, 1))
        for name in ("click_probability", "item_status", "propensity", "position")
    }
    for name in ("model_version", "status", "feature_version"):
        outputs[name] = np.array([[b"-"]], dtype=object)
    for name in ("recommended_item_ids", "candidate_source"):
        outputs[name] = np.array([[b"i"]], dtype=object)
    outputs["calibrated"] = np.array([[calibrated]], dtype=np.uint8)
    [ranking] = codec.rankings([RankRequest(user_id="u", item_ids=["i"])], outputs.get)
    assert ranking.calibrated is calibrated
    request = RecommendRequest(user_id="u")
    assert codec.recommendation(request, outputs.get).calibrated is calibrated
