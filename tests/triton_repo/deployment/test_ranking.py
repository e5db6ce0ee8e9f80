"""What a bundle orders items by, in a real tritonserver."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tritonclient.grpc import InferenceServerClient

from srp4ctr.client.codec import infer_inputs
from srp4ctr.client.messages import Ranking
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles import bundle
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import promotion
from tests.triton_repo import bundles
from tests.triton_repo.bundles import KNOWN_ITEM, STORE_GATE, MakeBundle, inputs_of
from tests.triton_repo.conftest import Server

pytestmark = pytest.mark.triton
ITEMS = [KNOWN_ITEM, "unknown", ""]


def promote(source: Path, server: Server) -> None:
    bundles.promote(source, server.triton, server.features)


def rank(server: Server) -> Ranking:
    with RankClient(server.triton.grpc) as client:
        return client.rank("u1", ITEMS)


def test_items_are_ordered_by_the_ranking_score_and_keep_their_probabilities(
    server: Server, make_bundle: MakeBundle
) -> None:
    promote(make_bundle("v1", mark=1.0), server)
    before = rank(server)
    promote(make_bundle("v2", mark=2.0, reverses=True), server)
    after = rank(server)
    assert (before.model_version, after.model_version) == ("v1", "v2")
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-6)
    likelier_first = [ITEMS[place] for place in np.argsort(before.scores[:2])[::-1]]
    assert list(before.to_show()) == likelier_first
    assert list(after.to_show()) == likelier_first[::-1]
    inputs = infer_inputs(
        model_names.MODEL_INPUTS, inputs_of(model_names.MODEL_INPUTS, 1, 2)
    )
    with InferenceServerClient(server.triton.grpc) as client:
        answer = client.infer(model_names.SCORE_CLICKS, inputs)
    ranking = answer.as_numpy("ranking_score")
    assert np.array_equal(-ranking, answer.as_numpy("click_probability"))


def test_a_ranking_score_that_differs_from_training_is_refused(
    server: Server, make_bundle: MakeBundle
) -> None:
    wrong = make_bundle("v3", mark=3.0, reverses=True)
    tensors = load_file(wrong / bundle.GOLDEN_FILE)
    tensors["ranking_score"] = tensors["ranking_score"] + np.float32(0.01)
    save_file(tensors, wrong / bundle.GOLDEN_FILE)
    bundle.write_manifest(wrong)
    done = promotion.promote(wrong, server.triton, server.features, STORE_GATE)
    assert re.search(r"ranking scores by 0\.01", done.refusal)
