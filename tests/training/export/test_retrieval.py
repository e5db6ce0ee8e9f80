import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import DTypeLike, NDArray
from safetensors.numpy import load_file
from torch import Tensor

from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors.schema import ENCODER_INPUTS
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import HISTORY_NAMES
from srp4ctr.training.dataset.cache import Catalogue
from srp4ctr.training.export import retrieval
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.export.retrieval import Pretrained
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.pretraining import MaskedHeads, Masks, hide
from srp4ctr.triton_repo.serving.item_vectors import Nearest, greatest
from tests.training.conftest import LENGTH, SIZES, TINY

Floats = NDArray[np.float32]
ITEMS, WIDTH = 50_000, 33
FIRST, IDS = 18, [f"item {number}" for number in range(22)]  # of 40 rows


@pytest.fixture(params=[200, 3], ids=["short histories", "long histories"])
def pretrained(request: pytest.FixtureRequest, recipe: RefreshConfig) -> Pretrained:
    torch.manual_seed(0)
    model = SRP4CTR(replace(TINY, encoded_length=request.param), SIZES)
    heads = MaskedHeads(TINY, model.embedding)
    with torch.no_grad():
        for parameter in model.parameters():  # zeros would hide a wrong shape
            parameter.add_(torch.randn_like(parameter) * 0.05)
        heads.item_bias.copy_(torch.randn(SIZES.item_rows))
    found = Pretrained.of(model, heads, recipe)
    assert found is not None
    return found


@pytest.fixture
def catalogue(requests_of: Callable[..., dict[str, Tensor]]) -> Catalogue:
    attributes = requests_of(count=1, candidates=22)["candidate_attribute_rows"][0]
    return Catalogue(
        id_letters=np.frombuffer("".join(IDS).encode(), dtype=np.uint8),
        id_ends=np.cumsum([len(each) for each in IDS]),
        attribute_rows=attributes.numpy().astype(np.int32),
        counts=np.arange(22),
    )


def expected_logits(
    pretrained: Pretrained, history: dict[str, Tensor], catalogue: Catalogue
) -> Tensor:
    """Return pre-training's own logits of each item behind ``history``."""
    moved = {name: each.roll(-1, dims=1) for name, each in history.items()}
    moved["history_item_rows"][:, -1] = MASK_ROW
    last = torch.zeros_like(moved["history_item_rows"], dtype=torch.bool)
    last[:, -1] = True
    hidden = hide(moved, Masks(items=last, behaviors=last, attributes=last))
    encoder = pretrained.model.encoder
    states = encoder.predictions(*(hidden[name] for name in HISTORY_NAMES))
    vectors = pretrained.model.embedding.item_vectors(
        torch.arange(FIRST, 40), torch.from_numpy(catalogue.attribute_rows.astype(np.int64))
    )
    logits: Tensor = states[:, -1] @ vectors.T + pretrained.item_bias[FIRST:]
    return logits


def test_the_files_answer_as_pretraining_does(
    pretrained: Pretrained,
    catalogue: Catalogue,
    requests_of: Callable[..., dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    retrieval.export(pretrained, catalogue, sizes_of(TINY, SIZES), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*bundle.RETRIEVAL_FILES}
    items = load_file(tmp_path / bundle.ITEMS_FILE)
    session = onnxruntime.InferenceSession(tmp_path / bundle.RETRIEVER_FILE)
    requests = requests_of(count=5)  # an empty history first, then a full one
    history = {name: requests[name] for name in HISTORY_NAMES}
    expected = expected_logits(pretrained, history, catalogue)
    found = session.run(None, {name: each.numpy() for name, each in history.items()})[0]
    np.testing.assert_allclose(found @ items["vectors"].T, expected, atol=1e-4)
    for row, length in enumerate([1, LENGTH, 5, 4, 3]):  # each at its own length
        cut = {n: history[n][row : row + 1, LENGTH - length :].numpy() for n in history}
        [alone] = session.run(None, cut)
        np.testing.assert_allclose(alone @ items["vectors"].T, expected[[row]], atol=1e-4)
    letters, ends = bytes(items["id_letters"]), [0, *items["id_ends"]]
    assert [letters[a:b].decode() for a, b in itertools.pairwise(ends)] == IDS
    assert {each.name for each in session.get_inputs()} == {s.name for s in ENCODER_INPUTS}


def test_what_is_learned_later_does_not_change_it(
    a_model: SRP4CTR, recipe: RefreshConfig
) -> None:
    pretrained = Pretrained.of(a_model, MaskedHeads(TINY, a_model.embedding), recipe)
    assert pretrained is not None
    before = pretrained.model.embedding.items.weight.clone()
    with torch.no_grad():
        a_model.embedding.items.weight.add_(1.0)
    assert torch.equal(pretrained.model.embedding.items.weight, before)


def test_without_predicted_items_there_is_nothing_to_retrieve_by(
    a_model: SRP4CTR, recipe: RefreshConfig
) -> None:
    heads = MaskedHeads(TINY, a_model.embedding)
    config = replace(recipe, pretraining="none")
    assert Pretrained.of(a_model, heads, config) is None


@pytest.fixture(scope="module")
def vectors() -> Floats:
    """Return vectors in clusters, some much longer than others, with a wide bias."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((300, WIDTH)).astype(np.float32) * 2.0
    made = rng.standard_normal((ITEMS, WIDTH)).astype(np.float32)
    made += centres[rng.integers(300, size=ITEMS)]
    made *= rng.lognormal(0.0, 0.5, (ITEMS, 1)).astype(np.float32)
    made[:, -1] = 3.0 * rng.standard_t(3, ITEMS)
    return made


@pytest.fixture(scope="module")
def search(vectors: Floats, tmp_path_factory: pytest.TempPathFactory) -> Nearest:
    path = tmp_path_factory.mktemp("products") / "products.onnx"
    retrieval.write_products(vectors, path)
    return Nearest(path, vectors)


def states(vectors: Floats) -> Floats:
    found = vectors[:20].copy()
    found[:, -1] = 1.0  # of the bias
    return found


def test_it_finds_what_an_exact_search_finds(search: Nearest, vectors: Floats) -> None:
    for state in states(vectors):
        expected = np.argsort(-(vectors @ state), kind="stable")[:200]
        assert len(np.intersect1d(expected, search(state, 200))) >= 199
        np.testing.assert_array_equal(search(state, 200)[:20], expected[:20])


@pytest.mark.parametrize("passing", [30, 1_000, ITEMS // 2])
def test_a_filter_leaves_all_that_pass_and_nothing_else(
    search: Nearest, vectors: Floats, passing: int
) -> None:
    among = np.sort(np.random.default_rng(1).permutation(ITEMS)[:passing])
    for state in states(vectors):
        order = among[np.argsort(-(vectors[among] @ state), kind="stable")]
        seen, gone = order[:5], np.concatenate([order[7:9], [0, 1]])
        expected = [row for row in order if row not in {*seen, *gone}][:200]
        match = search(state, 200, (gone, seen), among)
        assert len(match) == len(expected)
        assert not np.isin(match, [*seen, *gone]).any()
        assert np.isin(match, among).all()
        assert len(np.intersect1d(expected, match)) >= len(expected) - 1


@pytest.mark.parametrize("width", [8, 16, 32, 48, 64, 80])
def test_a_model_of_any_width_retrieves(width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors: Floats = rng.standard_normal((20_000, width + 1)).astype(np.float32)
    retrieval.write_products(vectors, tmp_path / "products.onnx")
    search, hits = Nearest(tmp_path / "products.onnx", vectors), 0
    for state in rng.standard_normal((10, width + 1)).astype(np.float32):
        expected = np.argsort(-(vectors @ state), kind="stable")[:100]
        hits += len(np.intersect1d(expected, search(state, 100)))
    assert hits >= 990


def test_products_that_are_integers_are_still_served(
    vectors: Floats, tmp_path: Path
) -> None:
    """Bundles before four bits have them."""
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    kinds = onnx.TensorProto
    graph = onnx.helper.make_graph(
        [
            node("MatMul", ["next_item", "vectors"], ["exact"]),
            node("Mul", ["exact", "thousand"], ["large"]),
            node("Cast", ["large"], ["products"], to=kinds.INT32),
        ],
        "products",
        [value("next_item", kinds.FLOAT, ["B", WIDTH])],
        [value("products", kinds.INT32, ["B", ITEMS])],
        [
            onnx.numpy_helper.from_array(np.ascontiguousarray(vectors.T), "vectors"),
            onnx.numpy_helper.from_array(np.float32(1000.0), "thousand"),
        ],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.save(model, tmp_path / "products.onnx")
    state = states(vectors)[0]
    order = np.argsort(-(vectors @ state), kind="stable")
    found = Nearest(tmp_path / "products.onnx", vectors)(state, 50, [order[:5]])
    np.testing.assert_array_equal(found, order[5:55])


def test_without_items_nothing_is_found(tmp_path: Path) -> None:
    nothing = np.zeros((0, WIDTH), dtype=np.float32)
    retrieval.write_products(nothing, tmp_path / "products.onnx")
    search = Nearest(tmp_path / "products.onnx", nothing)
    assert len(search(np.ones(WIDTH, dtype=np.float32), 5)) == 0


@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize("count", [1, 7, 200, 9_000, 20_000])
def test_the_largest_are_found(count: int, kind: DTypeLike) -> None:
    rng = np.random.default_rng(2)
    scores: NDArray[Any] = rng.permutation(10_007).astype(kind)
    assert sorted(greatest(scores, count)) == sorted(np.argsort(-scores)[:count])
    equal: NDArray[Any] = np.zeros(10_007, dtype=kind)
    assert len(set(greatest(equal, count).tolist())) == min(count, len(equal))
