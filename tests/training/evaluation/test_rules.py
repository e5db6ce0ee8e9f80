"""One-line rules compared with a model, and the gate that holds it to the best of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srp4ctr.features.bundles import rule_results
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.bundles.rule_results import RuleResult
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import rules
from srp4ctr.training.evaluation.evaluate import Scored, scored
from srp4ctr.training.evaluation.rules import Champion, Rule, RuleInputs

NOW_MS = 1_700_000_000_000


def some_slates(
    clicked: Sequence[Sequence[int]], shown: Sequence[Sequence[int]] | None = None
) -> Slates:
    """Return a slate for each row of ``clicked``, each of a user of their own."""
    clicks = np.array(clicked, dtype=np.float32)
    present = np.ones(clicks.shape, dtype=np.int32) if shown is None else np.array(shown)
    return Slates(
        tensors={"candidate_item_rows": present},
        clicked=clicks,
        positions=np.broadcast_to(np.arange(clicks.shape[1]), clicks.shape).copy(),
        log_draw=np.zeros(clicks.shape, dtype=np.float32),
        request_at_ms=NOW_MS + np.arange(len(clicks)),
        user_ids=np.array([f"u{n}" for n in range(len(clicks))]),
    )


def some_inputs(slates: Slates, **given: Any) -> RuleInputs:
    """Return the inputs of ``slates``: zeros, where ``given`` has no others."""
    none = np.zeros(slates.clicked.shape, dtype=np.int64)
    values: dict[str, Any] = dict.fromkeys(rules.INPUTS, none)
    values["first_seen_ms"] = none + slates.request_at_ms[:, None]  # all are new
    values["ranked"] = np.zeros(len(slates), dtype=np.bool_)
    return RuleInputs(**values | {name: np.asarray(array) for name, array in given.items()})


def by_name(
    slates: Slates,
    inputs: RuleInputs,
    numbers: dict[str, NDArray[np.float64]] | None = None,
) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules.rules_of(slates, inputs, numbers)}


def order_of(rule: Rule, row: int = 0) -> list[int]:
    """Return the candidates of a slate by ``rule``, the top first."""
    order: list[int] = np.argsort(-rule.scores[row], kind="stable").tolist()
    return order


def test_each_rule_puts_on_top_what_it_says() -> None:
    slates = some_slates([[0, 0, 1]])
    inputs = some_inputs(
        slates,
        clicks_2h=[[0, 5, 1]],
        clicks_24h=[[9, 5, 1]],
        clicks_all=[[1, 5, 20]],
        touched_ms=[[NOW_MS - 9, 0, NOW_MS - 3]],
        touches=[[4, 0, 1]],
        first_seen_ms=[[5, 0, 7]],  # no user has seen the second before
    )
    price = np.array([[30.0, np.nan, 10.0]])
    found = by_name(slates, inputs, {"price": price})
    tops = {name: order_of(rule)[0] for name, rule in found.items()}
    assert tops == {
        "popular_2h": 1,
        "popular_24h": 0,
        "popular_all": 2,
        "touched_last": 2,
        "touched_most": 0,
        "shown_order": 0,
        "touched_then_order": 2,
        "cheapest": 2,
        "newest": 1,  # no user has seen it before
    }
    assert order_of(found["touched_last"]) == [2, 0, 1]
    assert order_of(found["cheapest"]) == [2, 0, 1]


def test_touched_then_order_keeps_the_order_of_the_rest() -> None:
    slates = some_slates([[0, 0, 0, 1]])
    inputs = some_inputs(slates, touched_ms=[[0, 0, NOW_MS - 5, NOW_MS - 2]])
    assert order_of(by_name(slates, inputs)["touched_then_order"]) == [3, 2, 0, 1]


def test_a_rule_that_says_nothing_is_left_out() -> None:
    slates = some_slates([[0, 1], [1, 0]], shown=[[1, 1], [1, 0]])
    # Only the padding of the second slate is apart from the rest.
    inputs = some_inputs(slates, clicks_all=[[3, 3], [3, 0]])
    assert set(by_name(slates, inputs)) == {"shown_order"}


def test_the_shown_order_is_judged_where_no_model_made_it_and_gates_nothing() -> None:
    slates = some_slates([[0, 1], [1, 0]])
    found = by_name(slates, some_inputs(slates, ranked=[True, False]))
    assert found["shown_order"].slates.tolist() == [False, True]
    assert not found["shown_order"].gates
    every = by_name(slates, some_inputs(slates, ranked=[True, True]))
    assert "shown_order" not in every


def test_a_declared_number_that_ranks_like_the_position_is_the_callers_order() -> None:
    slates = some_slates([[0, 1, 0], [1, 0, 0]], shown=[[1, 1, 1], [1, 1, 0]])
    inputs = some_inputs(slates)
    rank = np.array([[1.0, 2.0, 7.0], [3.0, 4.0, np.nan]])
    price = np.array([[9.0, 1.0, 3.0], [2.0, 1.0, np.nan]])
    found = by_name(slates, inputs, {"price": price, "place": rank})
    assert found["callers_order"].meaning == "the caller's order (place)"
    assert found["callers_order"].gates
    touched = replace(inputs, touched_ms=np.full((2, 3), NOW_MS - 1))
    found = by_name(slates, touched, {"place": rank})
    assert found["touched_then_order"].gates
    assert order_of(found["callers_order"]) == [0, 1, 2]
    order = np.array([[2.0, 1.0, 3.0], [3.0, 4.0, np.nan]])
    named = by_name(slates, inputs, {"place": rank, "order": order})
    assert order_of(named["callers_order"]) == [1, 0, 2]
    assert "callers_order" not in by_name(slates, inputs, {"price": price})


def test_a_score_of_the_caller_falls_with_the_position_and_is_an_order_too() -> None:
    slates = some_slates([[0, 1, 0], [1, 0, 0]], shown=[[1, 1, 1], [1, 1, 0]])
    score = np.array([[7.0, 2.0, 1.0], [4.0, 3.0, np.nan]])
    for name in ("score", "order"):
        found = by_name(slates, some_inputs(slates), {name: score})
        assert order_of(found["callers_order"]) == [0, 1, 2]


def test_the_order_is_looked_for_where_no_model_made_it() -> None:
    slates = some_slates([[0, 1], [1, 0], [0, 1]])
    rank = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    mixed = by_name(slates, some_inputs(slates), {"place": rank})
    assert "shown_order" in mixed
    ranked = some_inputs(slates, ranked=[False, True, True])
    assert "callers_order" in by_name(slates, ranked, {"place": rank})


def test_numbers_are_read_by_the_names_of_their_columns() -> None:
    slates = some_slates([[0, 1]])
    columns = ("item_is_last", "price", "price_rank", "price_difference", "price_missing")
    features = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    features[0, :, 4] = (0, 1)
    tensors = {**slates.tensors, "candidate_features": features}
    numbers = rules.numbers_of(replace(slates, tensors=tensors), columns)
    assert list(numbers) == ["price"]
    np.testing.assert_array_equal(numbers["price"], [[1.0, np.nan]])


def judged_by(slates: Slates, scores: NDArray[np.generic]) -> Scored:
    return scored(slates, scores, scores)


def coins(seed: int, users: int = 60) -> tuple[Slates, NDArray[np.float64]]:
    """Return slates of five with one click each, at the top of what is returned."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(users * 3, 5))
    best = scores + random.normal(size=scores.shape)
    slates = some_slates((best == best.max(axis=1, keepdims=True)).astype(int).tolist())
    names = np.array([f"u{n % users}" for n in range(users * 3)])
    return replace(slates, user_ids=names), scores


def results_of(
    slates: Slates, scores: NDArray[np.float64], model: NDArray[np.float64]
) -> tuple[RuleResult, ...]:
    inputs = some_inputs(slates, clicks_2h=(scores * 1000).astype(np.int64))
    every = rules.rules_of(slates, inputs)
    return rules.compare(every, slates.shown, judged_by(slates, model))


def test_a_model_that_is_worse_than_a_rule_is_refused_and_says_why() -> None:
    slates, scores = coins(0)
    noise = np.random.default_rng(1).normal(size=scores.shape)
    results = results_of(slates, scores, noise)
    gate = rules.gate("v3", results)
    assert gate.passed is False
    for part in (
        "popular_2h (clicks of the last two hours)",
        "a price",
        "model promote v3 --accept-worse",
        "docs/callers.md#serve-a-rule-of-thumb",
    ):
        assert part in gate.note
    assert results[0].rule == "popular_2h"
    assert results[0].gauc_difference.is_worse
    assert results[0].ctr_difference.is_worse
    sentences = rule_results.notes(results)
    assert len(sentences) == 2
    assert "by gAUC" in sentences[0]
    assert "by CTR at 1" in sentences[1]


def test_a_model_as_good_passes_and_the_note_names_the_best_rule() -> None:
    slates, scores = coins(0)
    gate = rules.gate("v3", results_of(slates, scores, (scores * 1000).astype(np.int64)))
    assert gate.passed
    assert not gate.warning
    assert "popular_2h" in gate.note
    assert gate.value == 0.0
    assert rule_results.notes(results_of(slates, scores, scores)) == ()


@pytest.mark.parametrize(
    ("serving_is_worse", "champion_passed", "passed"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_a_bundle_replaces_one_that_is_worse_than_the_rule_too(
    serving_is_worse: bool, champion_passed: bool, passed: bool
) -> None:
    slates, scores = coins(0)
    noise = np.random.default_rng(1).normal(size=(2, *scores.shape))
    champion = Champion(
        version="v2",
        results=results_of(slates, scores, noise[0] if serving_is_worse else scores),
        gates=(Gate(gate="champion_gauc", passed=champion_passed),),
    )
    gate = rules.gate("v3", results_of(slates, scores, noise[1]), champion)
    assert gate.passed is passed
    assert gate.warning is passed
    assert ("as v2, which serves, is" in gate.note) is passed


def test_an_order_that_the_model_does_not_read_gates_nothing() -> None:
    slates, scores = coins(0)
    in_place = np.argsort(-scores, axis=1)
    sorted_slates = replace(
        slates, clicked=np.take_along_axis(slates.clicked, in_place, axis=1)
    )
    noise = np.random.default_rng(1).normal(size=scores.shape)
    inputs = some_inputs(sorted_slates)
    judged = judged_by(sorted_slates, noise)
    every = rules.rules_of(sorted_slates, inputs)
    results = rules.compare(every, slates.shown, judged)
    assert results[0].gauc_difference.is_worse
    assert rules.gate("v3", results).passed is None
    assert len(rule_results.notes(results)) == 2  # and yet the report says it
    order = {"order": sorted_slates.positions.astype(np.float64)}
    every = rules.rules_of(sorted_slates, inputs, order)
    results = rules.compare(every, slates.shown, judged)
    assert rules.gate("v3", results).passed is False


def test_more_rules_make_the_gate_no_stricter() -> None:
    """Of many rules one seems better by chance: the intervals are wider for it."""
    slates, scores = coins(0)
    rule = Rule(
        name="a", meaning="a", scores=scores, slates=np.ones(len(slates), dtype=np.bool_)
    )
    judged = judged_by(slates, scores + np.random.default_rng(1).normal(size=scores.shape))
    one, *_ = rules.compare([rule], slates.shown, judged)
    many, *_ = rules.compare([rule] * 9, slates.shown, judged)
    assert one.gate_high == one.gauc_difference.high
    assert one.gate_high is not None
    assert many.gate_high is not None
    assert many.gate_high > one.gate_high
    assert many.gauc_difference == one.gauc_difference


def test_requests_of_one_item_are_compared_with_one_another() -> None:
    random = np.random.default_rng(0)
    clicks = random.random(200) < 0.3
    slates = some_slates(clicks[:, None].astype(int).tolist())
    popular = (clicks * 3 + random.integers(0, 3, 200))[:, None]
    inputs = some_inputs(slates, clicks_24h=popular)
    every = rules.rules_of(slates, inputs)
    assert {each.name for each in every} == {"popular_24h"}
    judged = judged_by(slates, random.random((200, 1)))
    [result] = rules.compare(every, slates.shown, judged)
    assert result.metric == "AUC"
    assert result.gauc is not None
    assert result.gauc > 0.8
    assert result.ctr_at_1 is None
    assert rules.gate("v3", [result]).passed is False


def test_a_few_impressions_of_one_millisecond_make_no_feed_a_list() -> None:
    random = np.random.default_rng(0)
    clicks = random.random((200, 2)) < 0.3
    shown = np.ones((200, 2), dtype=np.int32)
    shown[3:, 1] = 0
    slates = some_slates(clicks.astype(int).tolist(), shown.tolist())
    inputs = some_inputs(slates, clicks_24h=clicks * 3 + random.integers(0, 3, (200, 2)))
    every = rules.rules_of(slates, inputs)
    judged = judged_by(slates, random.random((200, 2)))
    metrics = {each.metric for each in rules.compare(every, slates.shown, judged)}
    assert metrics == {"AUC"}


def test_what_cannot_be_measured_refuses_no_bundle() -> None:
    slates, scores = coins(0)
    alone = replace(slates, user_ids=np.array(["u0"] * len(slates)))
    none = replace(slates, clicked=np.zeros_like(slates.clicked))
    for given, said in ((alone, "one user"), (none, "undefined")):
        gate = rules.gate("v3", results_of(given, scores, -scores))
        assert gate.passed is None
        assert said in gate.note
    assert "allow no rule" in rules.gate("v3", ()).note
