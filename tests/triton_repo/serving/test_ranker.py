"""Calls → answers, without a server: batches, refusals, and which outputs are wanted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import request_log
from srp4ctr.features.bundles.request_log import ServedLog
from srp4ctr.features.online.request_features import RequestBatch
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo.model_names import FETCH_FEATURES, MODEL_INPUTS
from srp4ctr.triton_repo.serving import ranker as ranking
from srp4ctr.triton_repo.serving.onnx_scorer import PROBABILITY, RANKING, Tensors
from srp4ctr.triton_repo.serving.ranker import Call, Ranker
from srp4ctr.triton_repo.serving.refusals import RefusedError
from tests.triton_repo.bundles import inputs_of

ALL = frozenset(spec.name for spec in schema.SCORE_TENSORS + schema.RESPONSE_NOTES)
SCORES = frozenset({PROBABILITY})
OF_USER = frozenset(spec.name for spec in schema.USER_EMBEDDINGS + schema.REQUEST_NOTES)


class OneTensorPerItem:
    """Features whose candidate rows are the lengths of the item ids."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def of_candidates(self, users: Any, item_keys: Any, contexts: Any) -> RequestBatch:
        raise AssertionError("the calls of this file name their items")

    def assemble(
        self, users: Any, items: Any, times: Any, contexts: Any, numbers: Any = None
    ) -> RequestBatch:
        self.calls.append(len(users))
        self.numbers = numbers
        if b"bad" in users:
            raise MistakeError("user_id is bad")
        rows = np.array([[len(item) for item in row] for row in items])
        return RequestBatch(
            tensors={
                "candidate_item_rows": rows,
                "candidate_features": np.arange(rows.size * 12.0).reshape(*rows.shape, 12),
            },
            item_status=np.zeros(rows.shape, dtype=np.uint8),
            statuses=tuple(f"of {user.decode()}" for user in users),
            feature_versions=("items=1",) * len(users),
            times_ms=np.full(len(users), 1_700_000_000_000),
        )

    def close(self) -> None:
        """No thread runs."""


def score(tensors: Tensors) -> Tensors:
    rows = tensors["candidate_item_rows"]
    if (rows > 90).any():
        raise ValueError("indices element out of data bounds")
    return {
        PROBABILITY: rows / 100.0,
        "propensity": np.ones(rows.shape),
        "query_vectors": np.full((len(rows), 2, 4), 0.5),
    }


@pytest.fixture
def features() -> OneTensorPerItem:
    return OneTensorPerItem()


@pytest.fixture
def ranker(features: OneTensorPerItem) -> Ranker:
    return Ranker(
        version="v7",
        max_candidates=3,
        features=features,
        scorer=score,
        count_part=lambda *_: None,
    )


def a_call(*users: bytes, items: tuple[bytes, ...] = (b"a", b"bcd")) -> Call:
    given = {
        "user_id": np.array([[user] for user in users], dtype=object),
        "item_ids": np.array([items] * len(users), dtype=object).reshape(len(users), -1),
    }
    return Call(given=given, wanted=ALL)


def answered(answer: Tensors | Exception) -> Tensors:
    assert not isinstance(answer, Exception)
    return answer


def model_call(row: int) -> Call:
    """Return a call of the model's own tensors, whose candidates are all ``row``."""
    given = inputs_of(MODEL_INPUTS, 2, 3)
    given["candidate_item_rows"][:] = row
    return Call(given=given, wanted=SCORES)


def test_calls_of_one_shape_are_one_batch_and_get_their_own_answers(
    ranker: Ranker, features: OneTensorPerItem
) -> None:
    calls = [a_call(b"u1"), a_call(b"u2", b"u3"), a_call(b"u4", items=(b"x",))]
    answers = [answered(each) for each in ranker.answer_all(calls)]
    assert features.calls == [3, 1]
    assert [answer["status"].ravel().tolist() for answer in answers] == [
        ["of u1"],
        ["of u2", "of u3"],
        ["of u4"],
    ]
    for call, together in zip(calls, answers, strict=True):
        single = ranker.answer(call)
        assert together.keys() == single.keys() == ALL
        for name, array in single.items():
            np.testing.assert_array_equal(together[name], array)


def priced(*users: bytes, names: tuple[bytes, ...], numbers: Any) -> Call:
    call = a_call(*users)
    given = {
        "candidate_number_names": np.array([names] * len(users), dtype=object),
        "candidate_numbers": np.array([numbers] * len(users), dtype=np.float32),
    }
    wanted = call.wanted | {spec.name for spec in schema.NUMBER_OUTPUTS}
    return Call(given={**call.given, **given}, wanted=wanted)


def test_numbers_are_read_by_name_and_their_columns_returned(
    ranker: Ranker, features: OneTensorPerItem
) -> None:
    ranker = replace(ranker, numbers=("order", "price"))
    first = priced(b"u1", names=(b"price", b"other"), numbers=[[80, 1], [95, 2]])
    second = priced(b"u2", names=(b"order", b"price"), numbers=[[0, 60], [1, 70]])
    one, two = map(answered, ranker.answer_all([first, second]))
    assert features.calls == [2]  # other names are no other shape
    nan = np.nan
    expected = [[[nan, 80], [nan, 95]], [[0, 60], [1, 70]]]
    np.testing.assert_array_equal(features.numbers, np.array(expected, np.float32))
    assert one["number_columns"].tolist() == [[[*range(2, 12)], [*range(14, 24)]]]
    assert two["number_column_names"][0].tolist()[:6] == [
        b"order",
        b"order_rank",
        b"order_difference",
        b"order_from_last",
        b"order_missing",
        b"price",
    ]


def test_a_bundle_without_numbers_ignores_those_that_are_sent(
    ranker: Ranker, features: OneTensorPerItem
) -> None:
    call = priced(b"u1", names=(b"price",), numbers=[[80], [95]])
    answer = answered(ranker.answer_all([call])[0])
    assert (features.numbers, "number_columns" in answer) == (None, False)


def test_numbers_without_names_are_refused(ranker: Ranker) -> None:
    call = priced(b"u1", names=(b"price",), numbers=[[80], [95]])
    given = {n: each for n, each in call.given.items() if n != "candidate_number_names"}
    (refused,) = ranker.answer_all([replace(call, given=given)])
    assert "send candidate_numbers and candidate_number_names" in str(refused)


def test_numbers_of_other_items_are_refused(ranker: Ranker) -> None:
    (refused,) = ranker.answer_all([priced(b"u1", names=(b"price",), numbers=[[80]] * 3)])
    assert "differ in their sizes: {'N': [2, 3]}" in str(refused)


def test_a_refused_call_affects_no_other(ranker: Ranker) -> None:
    good, bad, other = ranker.answer_all([a_call(b"u1"), a_call(b"bad"), a_call(b"u2")])
    assert isinstance(bad, ValueError)
    assert answered(good)["status"].item() == "of u1"
    assert answered(other)["status"].item() == "of u2"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (a_call(b"u1", items=()), "0 item_ids; send 1 to 3"),
        (a_call(b"u1", items=(b"a",) * 4), "4 item_ids; send 1 to 3"),
        (model_call(91), "out of data bounds"),
        (Call(given={"item_ids": np.array([[b"a"]])}, wanted=ALL), "send user_id and"),
        (Call(given={"context": np.array([[b""]])}, wanted=ALL), "send user_id and"),
        (Call(given={"user_id": np.array([[b"u1"]])}, wanted=ALL), "and item_ids"),
    ],
    ids=["none", "too many", "outside the tables", "nobody", "nothing", "no items"],
)
def test_an_error_of_the_caller_names_what_to_fix(
    ranker: Ranker, call: Call, sentence: str
) -> None:
    (refused,) = ranker.answer_all([call])
    assert sentence in str(refused)
    assert isinstance(refused, RefusedError)


@pytest.mark.parametrize("failure", [MemoryError, RuntimeError, ValueError, KeyError])
def test_a_failure_that_is_not_the_caller_s_is_no_refusal(
    ranker: Ranker, failure: type[Exception]
) -> None:
    def scorer(tensors: Tensors) -> Tensors:
        if (tensors["candidate_item_rows"] == 13).any():
            raise failure("no")
        return score(tensors)

    calls = [a_call(b"u1"), a_call(b"u2", items=(b"a" * 13, b"b"))]
    good, failed = replace(ranker, scorer=scorer).answer_all(calls)
    assert answered(good)["status"].item() == "of u1"
    assert type(failed) is failure


def test_features_that_fail_are_no_refusal(
    ranker: Ranker, features: OneTensorPerItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "assemble", lambda *_: np.zeros(2).reshape(3))
    (failed,) = ranker.answer_all([a_call(b"u1")])
    assert type(failed) is ValueError


def test_tensors_of_other_sizes_are_refused(ranker: Ranker) -> None:
    given = inputs_of(MODEL_INPUTS, 2, 3)
    given["candidate_features"] = given["candidate_features"][:, :2]
    (refused,) = ranker.answer_all([Call(given=given, wanted=SCORES)])
    assert isinstance(refused, RefusedError)
    assert str(refused) == "the tensors differ in their sizes: {'N': [2, 3]}"


def test_the_models_own_tensors_are_scored_as_they_are(
    ranker: Ranker, features: OneTensorPerItem
) -> None:
    call = Call(given=inputs_of(MODEL_INPUTS, 2, 3), wanted=SCORES)
    assert ranker.answer(call)[PROBABILITY].tolist() == [[0.01] * 3] * 2
    assert features.calls == []


def test_without_a_policy_positions_are_best_first_and_padding_last(
    ranker: Ranker,
) -> None:
    def scorer(_: Tensors) -> Tensors:
        ranking = np.array([[-1.5, np.nan, 0.5], [0.3, 0.3, 0.9]])
        return {PROBABILITY: np.full((2, 3), 0.5), RANKING: ranking}

    wanted = frozenset({"position", "propensity"})
    given = a_call(b"u1", b"u2", items=(b"a", b"b", b"c")).given
    answer = replace(ranker, scorer=scorer).answer(Call(given=given, wanted=wanted))
    assert answer["position"].tolist() == [[1, 2, 0], [1, 2, 0]]
    assert answer["propensity"].tolist() == [[1.0] * 3] * 2
    assert answer["position"].dtype == np.int64
    assert answer["propensity"].dtype == np.float32


def test_an_item_that_is_requested_twice_gets_its_first_places_score(
    ranker: Ranker,
) -> None:
    def scorer(_: Tensors) -> Tensors:
        return {PROBABILITY: np.array([[0.2, 0.3, 0.4], [0.5, 0.6, 0.7]])}

    given = a_call(b"u1", b"u2", items=(b"a", b"b", b"a")).given
    answer = replace(ranker, scorer=scorer).answer(Call(given=given, wanted=SCORES))
    assert answer[PROBABILITY].tolist() == [[0.2, 0.3, 0.2], [0.5, 0.6, 0.5]]


def test_a_user_is_encoded_without_items(ranker: Ranker, tmp_path: Path) -> None:
    ranker = replace(ranker, log=ServedLog(str(tmp_path), share=1.0, max_mb=10.0))
    users = np.array([[b"u1"], [b"u2"]], dtype=object)
    names = np.array([[b"r1"], [b"r2"]], dtype=object)
    call = Call(given={"user_id": users, "request_id": names}, wanted=OF_USER)
    answer = ranker.answer(call)
    ranker.close()
    assert answer.keys() == OF_USER
    assert answer["query_vectors"].shape == (2, 2, 4)
    assert answer["status"].ravel().tolist() == ["of u1", "of u2"]
    assert request_log.newest(tmp_path, 9) == []  # there is no score to compare


def test_only_ids_are_counted_as_fetched(ranker: Ranker) -> None:
    counted: list[tuple[str, int]] = []
    ranker = replace(ranker, count_part=lambda part, runs, _: counted.append((part, runs)))
    ranker.answer(a_call(b"u1", b"u2"))
    ranker.answer(Call(given=inputs_of(MODEL_INPUTS, 2, 3), wanted=SCORES))
    assert sum(runs for part, runs in counted if part == FETCH_FEATURES) == 2


def test_requests_with_an_id_are_logged_as_they_were_served(
    ranker: Ranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "OWN_TENSORS", {"candidate_item_rows"})
    ranker = replace(ranker, log=ServedLog(str(tmp_path), share=1.0, max_mb=10.0))
    call = a_call(b"u1", b"u2", b"u3")
    names = np.array([[b"r1"], [b""], [b"r\xff3"]], dtype=object)
    ranker.answer(Call(given={**call.given, "request_id": names}, wanted=ALL))
    ranker.answer(call)
    ranker.close()
    kept = [request_log.read(path) for path in request_log.newest(tmp_path, 9)]
    assert {(each.request_id, each.user_id, each.status) for each in kept} == {
        ("r1", "u1", "of u1"),
        ("r\ufffd3", "u3", "of u3"),  # invalid UTF-8 is answered all the same
    }
    for each in kept:
        assert (each.item_ids, each.model_version) == (("a", "bcd"), "v7")
        assert each.tensors["candidate_item_rows"].tolist() == [[1, 3]]
        assert each.probabilities.tolist() == pytest.approx([0.01, 0.03])


def test_without_a_scorer_the_features_are_returned(ranker: Ranker) -> None:
    ranker = replace(ranker, scorer=None)
    call = Call(given=a_call(b"u1").given, wanted=frozenset({"candidate_item_rows"}))
    assert ranker.answer(call)["candidate_item_rows"].tolist() == [[1, 3]]


def test_an_answer_says_whether_its_scores_are_probabilities(ranker: Ranker) -> None:
    call = a_call(b"u1", b"u2")
    assert ranker.answer(call)["calibrated"].tolist() == [[1], [1]]
    of_sampled = replace(ranker, calibrated=False)
    assert of_sampled.answer(call)["calibrated"].tolist() == [[0], [0]]
    assert of_sampled.answer(call)["calibrated"].dtype == np.uint8
