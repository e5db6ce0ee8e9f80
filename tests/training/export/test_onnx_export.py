from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.tensors.fingerprint import fingerprint
from srp4ctr.features.tensors.schema import ENCODER_INPUTS, Field
from srp4ctr.testing.head_vectors import score_with_vectors
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.export.onnx_export import (
    check,
    export,
    scorer,
    write_golden,
)
from srp4ctr.training.model.heads.scores import Scores
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.triton_repo.serving.onnx_scorer import Scorer
from tests.training.conftest import SIZES, TINY

Maker = Callable[..., dict[str, Tensor]]


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # the least that calibration fits
def test_onnx_answers_as_torch_does_with_padding_and_an_empty_history(
    a_model: SRP4CTR,
    requests_of: Maker,
    recipe: RefreshConfig,
    tmp_path: Path,
    scale: float,
) -> None:
    a_model.head.click.calibration_scale.fill_(scale)
    a_model.head.click.calibration_bias.fill_(-4.0)
    requests = {name: tensor.numpy() for name, tensor in requests_of(count=3).items()}
    requests["candidate_item_rows"][1, 2:] = 0
    export(a_model, sizes_of(recipe.model, SIZES), tmp_path)
    write_golden(a_model, requests, tmp_path)
    golden = load_file(tmp_path / bundle.GOLDEN_FILE)
    assert np.isnan(golden["click_probability"]).sum() == 3
    made = scorer(tmp_path)(requests)
    assert check(golden, made) < 1e-5
    np.testing.assert_allclose(made.ranking, golden["ranking_score"], atol=1e-5)


def test_the_head_also_gives_what_its_blocks_made(
    requests_of: Maker, tmp_path: Path
) -> None:
    model = SRP4CTR(TINY, SIZES).eval()
    sizes = sizes_of(TINY, SIZES)
    export(model, sizes, tmp_path)
    card = BundleManifest(version="v1", created_at_ms=0, sizes=sizes)
    bundle.write_card(tmp_path, card)
    tensors = requests_of(count=2, candidates=4)
    inputs = {**tensors, **model.encode(tensors)}
    expected = score_with_vectors(model, inputs)
    made = Scorer(tmp_path, 0, lambda *_: None)(
        {name: tensor.numpy() for name, tensor in tensors.items()}
    )
    probability, queries, candidates = (
        made[name] for name in ("click_probability", "query_vectors", "candidate_states")
    )
    assert queries.shape == (2, sizes["M"], sizes["D"])
    assert candidates.shape == (2, 4, sizes["D"])
    for array, tensor in zip((probability, queries, candidates), expected, strict=True):
        np.testing.assert_allclose(array, tensor.detach().numpy(), atol=1e-5)
    # They are what the head reads: one candidate's alone decides its state.
    other = {**inputs, "candidate_item_rows": inputs["candidate_item_rows"].clone()}
    other["candidate_item_rows"][:, 0] += 1
    _, same_queries, moved = score_with_vectors(model, other)
    np.testing.assert_allclose(same_queries.detach(), queries, atol=1e-5)
    np.testing.assert_allclose(moved[:, 1:].detach(), candidates[:, 1:], atol=1e-5)
    assert (np.abs(moved[:, 0].detach().numpy() - candidates[:, 0]) > 1e-3).any()


@pytest.mark.parametrize(("count", "candidates"), [(1, 1), (5, 40)])
def test_the_exported_axes_are_free(
    a_model: SRP4CTR,
    requests_of: Maker,
    recipe: RefreshConfig,
    tmp_path: Path,
    count: int,
    candidates: int,
) -> None:
    export(a_model, sizes_of(recipe.model, SIZES), tmp_path)
    tensors = requests_of(count=count, candidates=candidates)
    answered = scorer(tmp_path)({name: t.numpy() for name, t in tensors.items()})
    assert [each.shape for each in answered] == [(count, candidates)] * 2


def test_the_order_of_rare_clicks_is_exported_too(
    a_model: SRP4CTR, requests_of: Maker, recipe: RefreshConfig, tmp_path: Path
) -> None:
    with torch.no_grad():
        a_model.head.click.out.bias.fill_(-25.0)  # a click in 7e10 impressions
    export(a_model, sizes_of(recipe.model, SIZES), tmp_path)
    tensors = requests_of(count=2, candidates=4)
    made = scorer(tmp_path)({name: t.numpy() for name, t in tensors.items()}).ranking
    expected = a_model.score({**tensors, **a_model.encode(tensors)}).ranking
    assert (expected < -18.0).all()
    np.testing.assert_allclose(made, expected.detach(), atol=1e-4)


def test_an_export_that_differs_is_refused() -> None:
    right, near, far, full = (
        np.array([each], dtype=np.float32)
        for each in ([0.5, np.nan], [0.5003, np.nan], [0.502, np.nan], [0.5, 0.5])
    )
    golden = {"click_probability": right, "ranking_score": right}
    assert check(golden, Scores(right, near)) == 0.0
    with pytest.raises(ValueError, match=r"click_probability differs from .* by 0\.0003"):
        check(golden, Scores(near, right))
    with pytest.raises(ValueError, match=r"ranking_score differs from torch's by 0\.002"):
        check(golden, Scores(right, far))
    for wrong in (Scores(full, right), Scores(right, full)):
        with pytest.raises(ValueError, match="pads in other places"):
            check(golden, wrong)


USER_FIELDS = (
    Field(name="age", kind="numeric", size=4),
    Field(name="towns", kind="multi", size=5, slots=2),
)


@pytest.mark.parametrize("user_fields", [(), USER_FIELDS])
def test_a_model_of_items_without_any_field_is_exported_too(
    user_fields: tuple[Field, ...], requests_of: Maker, tmp_path: Path
) -> None:
    bare = replace(SIZES, item_fields=(), user_fields=user_fields)
    model = SRP4CTR(TINY, bare).eval()
    requests = {name: tensor.numpy() for name, tensor in requests_of(count=3).items()}
    if user_fields:
        rows = np.array([[2, 6, 0], [5, 7, 9], [0, 0, 0]])
        requests["user_attribute_rows"] = rows
    for name in ("history_attribute_rows", "candidate_attribute_rows"):
        requests[name] = np.zeros((*requests[name].shape[:-1], 1), dtype=np.int64)
    export(model, sizes_of(TINY, bare), tmp_path)
    write_golden(model, requests, tmp_path)
    golden = load_file(tmp_path / bundle.GOLDEN_FILE)
    assert check(golden, scorer(tmp_path)(requests)) < 1e-5


def test_a_short_history_is_encoded_at_its_length_and_scores_the_same(
    a_model: SRP4CTR, requests_of: Maker, recipe: RefreshConfig, tmp_path: Path
) -> None:
    sizes = sizes_of(recipe.model, SIZES)
    export(a_model, sizes, tmp_path)
    bundle.write_card(tmp_path, BundleManifest(version="v1", created_at_ms=0, sizes=sizes))
    lengths = (0, 1, 3, sizes["L"])
    tensors = {name: tensor[[1] * 4].clone() for name, tensor in requests_of().items()}
    for row, length in enumerate(lengths):  # request 1 has a full history
        for spec in ENCODER_INPUTS:
            tensors[spec.name][row, : sizes["L"] - length] = 0
    requests = {name: tensor.numpy() for name, tensor in tensors.items()}
    score = Scorer(tmp_path, 0, lambda *_: None)
    for row, length in enumerate(lengths):
        states, _ = score.states({n: each[row : row + 1] for n, each in requests.items()})
        assert states["state_mask"].shape == (1, max(length, 1) + 1)
    made, exported = score(requests), scorer(tmp_path)(requests)
    with torch.no_grad():
        expected = a_model.score({**tensors, **a_model.encode(tensors)})
    for place, name in enumerate(("click_probability", "ranking_score")):
        np.testing.assert_allclose(made[name], expected[place], atol=1e-5)
        np.testing.assert_allclose(exported[place], expected[place], atol=1e-5)


def test_a_model_with_user_fields_is_exported_with_one_more_input(
    requests_of: Maker, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tables = replace(SIZES, user_fields=USER_FIELDS)
    model = SRP4CTR(TINY, tables).eval()
    assert model.user_fields is not None
    with torch.no_grad():
        for parameter in model.parameters():  # biases begin as zeros
            parameter.add_(torch.randn_like(parameter) * 0.2)
        for table in (model.user_fields.vectors, model.user_fields.biases):
            table.weight[0] = 0.0
    model.head.click.calibration_scale.fill_(1.7)
    sizes = sizes_of(TINY, tables)
    rows = np.array([[2, 6, 0], [5, 7, 9], [0, 0, 0], [3, 10, 6]])
    requests = {name: tensor.numpy() for name, tensor in requests_of(count=4).items()}
    requests["user_attribute_rows"] = rows
    export(model, sizes, tmp_path)
    write_golden(model, requests, tmp_path)
    golden = load_file(tmp_path / bundle.GOLDEN_FILE)
    assert check(golden, scorer(tmp_path)(requests)) < 1e-5
    card = BundleManifest(version="v1", created_at_ms=0, sizes=sizes)
    bundle.write_card(tmp_path, card)
    made = Scorer(tmp_path, 0, lambda *_: None)(requests)["click_probability"]
    np.testing.assert_allclose(made, golden["click_probability"], atol=1e-5)
    alike = requests | {"user_attribute_rows": np.zeros_like(rows)}
    others = np.abs(scorer(tmp_path)(alike).click - made).max(axis=1)
    assert (others > 1e-3).tolist() == [True, True, False, True]


def test_only_a_bundle_with_user_fields_has_another_schema() -> None:
    tables = replace(SIZES, user_fields=USER_FIELDS)
    plain, described = sizes_of(TINY, SIZES), sizes_of(TINY, tables)
    assert described == plain | {"U": 3}
    assert fingerprint(plain) == fingerprint() != fingerprint(described)
