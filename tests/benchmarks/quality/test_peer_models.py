"""What a peer reads: a row per shown impression, aligned with its request and its click."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.quality import peer_models
from benchmarks.quality.clicks.click_examples import Examples, Part
from benchmarks.quality.clicks.click_report import rows_of
from benchmarks.quality.clicks.click_scores import calibrated_loss
from benchmarks.quality.peer_models import (
    SPANS,
    edges_of,
    flat,
    save_impressions,
)
from srp4ctr.features.columns import CANDIDATE, REQUEST
from srp4ctr.features.tensors.schema import Field
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.model.embeddings import TableSizes

FIELDS = (
    Field(name="year", kind="categorical", size=3),
    Field(name="genres", kind="multi", size=4, slots=2),
)
LENGTH = 4


def a_part() -> Part:
    """Return two slates, of two candidates and of one; the first reader has one read."""
    drawn = np.random.default_rng(0)
    tensors: dict[str, NDArray[np.generic]] = {
        "history_item_rows": np.array([[0, 0, 0, 7], [5, 6, 7, 8]], dtype=np.int32),
        "history_attribute_rows": drawn.integers(2, 9, (2, LENGTH, 3)).astype(np.int32),
        "history_behavior_codes": np.zeros((2, LENGTH, 3), dtype=np.int16),
        "request_features": drawn.random((2, REQUEST.width), dtype=np.float32),
        "context_rows": np.array([[3, 4], [5, 0]]),
        "candidate_item_rows": np.array([[9, 7, 0], [8, 0, 0]], dtype=np.int32),
        "candidate_attribute_rows": drawn.integers(2, 9, (2, 3, 3)).astype(np.int32),
        "candidate_features": drawn.random((2, 3, CANDIDATE.width), np.float32),
    }
    slates = Slates(
        tensors=tensors,
        clicked=np.array([[0, 1, 0], [1, 0, 0]], dtype=np.float32),
        positions=np.zeros((2, 3), dtype=np.int64),
        log_draw=np.zeros((2, 3), dtype=np.float32),
        request_at_ms=np.array([1, 2]),
        user_ids=np.array(["u", "v"]),
    )
    items = np.array([[0, 1, -1], [2, -1, -1]], dtype=np.int32)
    requests, contexts = np.array([0, 1]), np.array(["", ""])
    return Part(slates=slates, requests=requests, items=items, contexts=contexts)


def an_example() -> Examples:
    part = a_part()
    return Examples(
        name="shop",
        digest="0",
        train=part,
        calibrate=part,
        judge=part,
        frozen=part,
        windows=Windows(tensors={}),
        sizes=TableSizes(item_rows=10, item_fields=FIELDS, length=LENGTH),
        first_known_row=2,
        item_impressions=np.array([1, 1, 1]),
        item_is_new=np.zeros(3, dtype=np.bool_),
    )


def test_a_row_is_a_shown_candidate_with_the_history_of_its_request() -> None:
    part = a_part()
    columns = flat(part, edges_of(part), FIELDS)
    assert {len(column) for column in columns.values()} == {3}
    assert columns["target_item"].tolist() == [9, 7, 8]
    histories = [[0, 0, 0, 7], [0, 0, 0, 7], [5, 6, 7, 8]]
    assert columns["history_item"].tolist() == histories
    assert columns["profile_context"].tolist() == [[3, 4], [3, 4], [5, 0]]


def test_an_attribute_is_compared_with_the_historys_by_its_first_slot() -> None:
    part = a_part()
    columns, tensors = flat(part, edges_of(part), FIELDS), part.slates.tensors
    own = tensors["candidate_attribute_rows"][part.slates.shown]
    np.testing.assert_array_equal(columns["target_field1"], own[:, 1])
    np.testing.assert_array_equal(columns["profile_field1"], own[:, 1:])
    assert "profile_field0" not in columns  # one slot: it is all in the target
    of_history = tensors["history_attribute_rows"][[0, 0, 1], :, 1]
    np.testing.assert_array_equal(columns["history_field1"], of_history)


def test_a_counter_is_cut_where_training_has_its_quantiles() -> None:
    part = a_part()
    features = np.arange(2 * REQUEST.width, dtype=np.float32).reshape(2, -1)
    moved = {**part.slates.tensors, "request_features": features + 1e6}
    later = replace(part, slates=replace(part.slates, tensors=moved))
    columns = flat(later, edges_of(part), FIELDS)
    spans = [
        columns[f"profile_counter{number:02}"] for number in range(part.columns.shape[1])
    ]
    assert max(int(span.max()) for span in spans) < SPANS
    # Beyond all that training met is the last span, not a new one.
    assert spans[0].tolist() == [len(edges_of(part)[0])] * 3


def test_the_file_holds_training_clicks_alone_and_a_size_for_each_table(
    tmp_path: Path,
) -> None:
    save_impressions(an_example(), tmp_path / "in.npz")
    with np.load(tmp_path / "in.npz", allow_pickle=False) as found:
        keys = set(found)
        assert found["train/clicked"].tolist() == [0, 1, 1]  # as shown: padding left out
        assert {key for key in keys if key.endswith("/clicked")} == {"train/clicked"}
        for key in keys:
            part, _, name = key.partition("/")
            if part == "train" and name.startswith(("target_", "profile_")):
                assert found[key].max() < found[f"rows/{name}"]


def a_fit(folder: Path) -> peer_models.Fit:
    return peer_models.Fit(
        inputs=folder / "in.npz",
        cache_dir=folder,
        data="shop",
        model="din",
        epochs=2,
        rate=1e-3,
        seed=0,
        batch=8,
    )


def test_without_uv_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    fit = a_fit(tmp_path)
    with pytest.raises(SystemExit, match="pip install uv"):
        fit.outputs()


def test_a_fits_result_is_a_row_like_the_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.array([-1.0, 1.0, 0.5])
    made = {"calibrate": logits, "judge": logits, "frozen": -logits}

    def fake(_: peer_models.Fit, outputs: Path) -> None:
        np.savez(outputs, seconds=3.0, flops=[1, 100], **made)  # type: ignore[arg-type]

    monkeypatch.setattr(peer_models, "run_worker", fake)
    fit = a_fit(tmp_path)
    result = peer_models.result_of(an_example(), fit, with_frozen=True)
    live, frozen = rows_of([result], {fit.name: 1})
    assert (live["data"], frozen["data"]) == ("shop", "shop frozen")
    assert live["model"] == "din (torch-rechub 0.9)"
    assert (live["auc"], frozen["auc"]) == (1.0, 0.0)
    assert live["meaning"].startswith("DIN as torch-rechub 0.9.0 has it")
    assert live["chosen"] == {"learning_rate": 1e-3, "epochs": 2}
    assert calibrated_loss(a_part(), fit.outputs()["calibrate"]) < np.log(2)
