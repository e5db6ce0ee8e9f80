"""Requests are counted under the names that the monitor shows."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from srp4ctr import metrics
from srp4ctr.features import columns
from srp4ctr.features.bundles.drift_reference import (
    COLD_USER,
    SCORE,
    UNSEEN_ITEM,
    Bins,
    Reference,
    write_reference,
)
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.triton_repo.serving import serving_metrics
from srp4ctr.triton_repo.serving.refusals import RefusedError
from srp4ctr.triton_repo.serving.serving_metrics import (
    SAMPLED,
    Key,
    RequestStats,
    ServingMetrics,
)

AT_MS = 1_750_000_000_000
HALVES = Bins(edges=(0.5,), shares=(0.5, 0.5))
REFERENCE = Reference(
    shown=2, bins={COLD_USER: HALVES, UNSEEN_ITEM: HALVES, SCORE: HALVES, "gone": HALVES}
)


class Counted:
    """Metrics whose counters are read when they have stopped."""

    def __init__(self, reference: Reference | None = None) -> None:
        self.counters: Counter[Key] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            if reference is not None:
                write_reference(Path(folder), reference)
            known = list(serving_metrics.keys("click_ranker_v7", "v7", Path(folder)))
        self._metrics = ServingMetrics(
            {k: self._increment(k) for k in known}, "click_ranker_v7"
        )
        self._metrics.start()
        self.stats = RequestStats(metrics=self._metrics, reference=reference)

    def _increment(self, key: Key) -> Callable[[float], None]:
        return lambda more: self.counters.update({key: round(more)})

    def of(self, family: str) -> dict[str, int]:
        self._metrics.stop()
        return {key[2]: count for key, count in self.counters.items() if key[0] == family}


def an_answer(**changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "status": np.array([["ok"]], dtype=object),
        "feature_version": np.array([[f"items={AT_MS - 700}"]], dtype=object),
        "item_status": np.zeros((1, 3), dtype=np.uint8),
        "candidate_item_rows": np.array([[7, 8, 9]]),
        "history_item_rows": np.zeros((1, 4), dtype=np.int64),
        "request_features": np.zeros((1, columns.REQUEST.width)),
        "candidate_features": np.zeros((1, 3, columns.CANDIDATE.width)),
        "click_probability": np.array([[0.9, 0.2, 0.1]]),
    }
    return answer | changes


def observed(counted: Counted, **changes: Any) -> Counted:
    counted.stats.observe_requests(an_answer(**changes), np.array([AT_MS]))
    return counted


def test_statuses_of_users_and_of_items_are_counted_and_padding_is_not() -> None:
    unknown = ItemStatus.UNKNOWN_ITEM | ItemStatus.NO_ATTRIBUTES
    status = np.array([[0, unknown, ItemStatus.PADDING]], dtype=np.uint8)
    counted = observed(Counted(), item_status=status)
    assert counted.of(metrics.REQUEST_STATUS) == {"ok": 1}
    assert counted.of(metrics.ITEM_STATUS) == {
        "ok": 1,
        "unknown_item": 1,
        "no_attributes": 1,
    }


def test_ages_are_those_of_the_versions_that_were_read() -> None:
    sequence_us = (AT_MS - 4000) * 1000
    version = f"user={sequence_us}@12,items={AT_MS - 700}"
    counted = observed(Counted(), feature_version=np.array([[version]], dtype=object))
    assert counted.of(metrics.FEATURE_AGE) == {"5": 1}
    assert counted.of(metrics.FEATURE_AGE_MS) == {"": 4000}
    assert counted.of(metrics.TABLE_AGE_MS) == {"": 700}
    assert counted.of(metrics.TABLE_READS) == {"": 1}


def test_an_unknown_user_has_no_sequence_age() -> None:
    assert observed(Counted()).of(metrics.FEATURE_AGE) == {}


def test_the_best_scored_are_counted_in_the_references_bins() -> None:
    status = np.array([[0, ItemStatus.UNKNOWN_ITEM, 0]], dtype=np.uint8)
    counted = observed(Counted(REFERENCE), item_status=status)
    assert counted.of(metrics.FEATURE_BIN) == {
        f"{SCORE}/0": 1,
        f"{SCORE}/1": 1,
        f"{UNSEEN_ITEM}/0": 1,
        f"{UNSEEN_ITEM}/1": 1,
        f"{COLD_USER}/1": 1,
    }


def test_features_of_the_last_few_requests_are_compared() -> None:
    counted = Counted(REFERENCE)
    for _ in range(3 * SAMPLED):
        observed(counted)
    assert counted.of(metrics.FEATURE_BIN)[f"{COLD_USER}/1"] == SAMPLED
    assert counted.of(metrics.REQUEST_STATUS) == {"ok": 3 * SAMPLED}


def test_features_without_scores_are_compared_with_nothing() -> None:
    answer = an_answer()
    del answer["click_probability"]  # another step scores
    counted = Counted(REFERENCE)
    counted.stats.observe_requests(answer, np.array([AT_MS]))
    assert counted.of(metrics.FEATURE_BIN) == {}
    assert counted.of(metrics.CANDIDATES) == {"": 3}


def test_candidates_are_counted_where_they_are_scored() -> None:
    counted = observed(Counted())
    counted.stats.observe_scores(np.array([[0.2, np.nan], [0.1, 0.3]], dtype=np.float32))
    assert counted.of(metrics.CANDIDATES) == {"": 3}


def test_an_answer_has_a_duration_and_a_refusal_a_reason() -> None:
    counted = Counted()
    counted.stats.observe_calls([{}, {}, RefusedError("0 item_ids", "shape")], 0.004)
    assert counted.of(metrics.ANSWERS) == {"0.005": 2}
    assert counted.of(metrics.ANSWERS_US) == {"": 8000}
    assert counted.of(metrics.REFUSED) == {"shape": 1}


def test_a_family_has_the_label_of_the_model_and_at_most_another() -> None:
    for spec in serving_metrics.FAMILIES.values():
        assert spec.labels[0] == "model"
        assert len(spec.labels) <= 2
