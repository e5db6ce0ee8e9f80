"""A bundle's two ONNX files, run one after the other; histories are encoded when new."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from srp4ctr.features.bundles import bundle
from srp4ctr.triton_repo.model_names import BEHAVIOR_ENCODER, CLICK_HEAD, MODEL_INPUTS
from srp4ctr.triton_repo.serving.onnx_scorer import Scorer, StateCache
from tests.triton_repo.bundles import MakeBundle, inputs_of, make_bundle_in
from tests.triton_repo.tiny_graphs import BROKEN, TOO_LARGE

PLENTY = 1_000_000


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    return make_bundle_in(tmp_path)


class PartCounts(Counter[str]):
    def __call__(self, part: str, runs: int, seconds: float) -> None:
        assert seconds >= 0.0
        self[part] += runs


def tensors_of(users: int, first_item: int = 1) -> dict[str, np.ndarray]:
    """Return requests whose histories end in items ``first_item`` and up."""
    tensors = inputs_of(MODEL_INPUTS, users, 3)
    tensors["history_item_rows"][:, -1] = first_item + np.arange(users)
    return tensors


@pytest.mark.parametrize("cache_bytes", [0, PLENTY])
def test_golden_requests_are_answered_as_in_training(
    make_bundle: MakeBundle, cache_bytes: int
) -> None:
    folder = make_bundle("v1", mark=1.0)
    golden = load_file(folder / bundle.GOLDEN_FILE)
    score = Scorer(folder, cache_bytes, PartCounts())
    for _ in range(2):
        answered = score(golden)["click_probability"]
        np.testing.assert_allclose(answered, golden["click_probability"], atol=1e-6)


@pytest.mark.parametrize("reverses", [False, True])
def test_items_have_the_ranking_scores_of_the_head(
    make_bundle: MakeBundle, reverses: bool
) -> None:
    score = Scorer(make_bundle("v1", mark=1.0, reverses=reverses), 0, PartCounts())
    tensors = inputs_of(MODEL_INPUTS, 1, 4)
    tensors["candidate_item_rows"][:] = [7, 3, 9, 0]
    made = score(tensors)
    order = np.argsort(-made["ranking_score"], axis=1)
    assert order.tolist() == [[1, 0, 2, 3] if reverses else [2, 0, 1, 3]]
    assert np.isnan(made["ranking_score"]).tolist() == [[False] * 3 + [True]]


def test_a_history_is_encoded_once_while_its_states_are_cached(
    make_bundle: MakeBundle,
) -> None:
    counts = PartCounts()
    score = Scorer(make_bundle("v1", mark=1.0), PLENTY, counts)
    first = score(tensors_of(2))
    again = score(tensors_of(3))
    assert counts == {BEHAVIOR_ENCODER: 3, CLICK_HEAD: 5}
    np.testing.assert_array_equal(
        again["click_probability"][:2], first["click_probability"]
    )


def test_without_a_cache_every_history_is_encoded(make_bundle: MakeBundle) -> None:
    counts = PartCounts()
    score = Scorer(make_bundle("v1", mark=1.0), 0, counts)
    score(tensors_of(2))
    score(tensors_of(2))
    assert counts[BEHAVIOR_ENCODER] == 4


@pytest.mark.parametrize(
    ("candidates", "error"), [(TOO_LARGE, MemoryError), (BROKEN, ValueError)]
)
def test_memory_and_rows_outside_a_table_have_errors_of_their_own(
    make_bundle: MakeBundle, candidates: int, error: type[Exception]
) -> None:
    score = Scorer(make_bundle("v1", mark=1.0, fails=True), PLENTY, PartCounts())
    assert np.isfinite(score(tensors_of(1))["click_probability"]).all()
    with pytest.raises(error):
        score(inputs_of(MODEL_INPUTS, 1, candidates))


@pytest.mark.parametrize(
    "name", ["history_item_rows", "history_attribute_rows", "history_behavior_codes"]
)
def test_any_change_of_a_history_encodes_it_again(
    make_bundle: MakeBundle, name: str
) -> None:
    counts = PartCounts()
    score = Scorer(make_bundle("v1", mark=1.0), PLENTY, counts)
    tensors = tensors_of(1)
    score(tensors)
    tensors[name].flat[0] += 1
    score(tensors)
    assert counts[BEHAVIOR_ENCODER] == 2


def test_the_least_recently_used_states_are_evicted() -> None:
    states = {"states": np.zeros(10, dtype=np.uint8)}
    cache = StateCache(max_bytes=35)  # a history is a byte, its states are ten
    for history in (b"a", b"b", b"c"):
        cache.put(history, states)
    assert cache.get(b"a") is not None
    cache.put(b"d", states)
    assert [cache.get(history) is not None for history in (b"a", b"b", b"c", b"d")] == [
        True,
        False,
        True,
        True,
    ]
