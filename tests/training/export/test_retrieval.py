import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
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
from srp4ctr.training.objectives.pretraining import hide
from srp4ctr.training.objectives.pretraining_heads import MaskedHeads, Masks
from tests.training.conftest import LENGTH, SIZES, TINY

FIRST, IDS = 18, [f"item {number}" for number in range(22)]  # of 40 rows


@pytest.fixture
def pretrained(a_model: SRP4CTR, recipe: RefreshConfig) -> Pretrained:
    heads = MaskedHeads(TINY, a_model.embedding)
    with torch.no_grad():
        heads.item_bias.copy_(torch.randn(SIZES.item_rows))
    found = Pretrained.of(a_model, heads, recipe)
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
    state = pretrained.model.encode(hide(moved, Masks(items=last, behaviors=last)))
    vectors = pretrained.model.embedding.item_vectors(
        torch.arange(FIRST, 40), torch.from_numpy(catalogue.attribute_rows.astype(np.int64))
    )
    logits: Tensor = state["last_states"][:, -1] @ vectors.T + pretrained.item_bias[FIRST:]
    return logits


def test_the_files_answer_as_pretraining_does(
    pretrained: Pretrained,
    catalogue: Catalogue,
    requests_of: Callable[..., dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    retrieval.export(pretrained, catalogue, sizes_of(TINY, SIZES), tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {*bundle.RETRIEVAL_FILES}
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
    a_model: SRP4CTR, pretrained: Pretrained
) -> None:
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
