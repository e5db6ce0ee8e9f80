"""Users' attributes from the store to a score: a real model in a real Triton."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import infer_inputs
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors import item_fields, vocabulary
from srp4ctr.features.tensors.schema import USER_TENSORS
from srp4ctr.streams.events.schema import item_key
from srp4ctr.training.export import onnx_export
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import promotion
from tests.builders import NOON_MS, a_forget, a_profile
from tests.features.stored import store_events
from tests.triton_repo.bundles import promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.real_bundles import a_bundle
from tests.triton_repo.tiny_graphs import L

pytestmark = [pytest.mark.stack, pytest.mark.triton]

ITEMS = ["item-1", "item-2", "item-3"]
PLAIN = vocabulary.build({item_key(item): 9 for item in ITEMS}, [])
TOWNS = [{"town": town, "likes": ("a", "b")} for town in ("Ulm", "Bonn")] * 6
DESCRIBED = replace(PLAIN, user_fields=item_fields.build(TOWNS))


@pytest.fixture(scope="module")
def described(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Serve a bundle with user fields; users are stored."""
    from srp4ctr.features.online.store import FeatureStoreSink

    events = [
        a_profile(user_id="ann", town="Ulm", likes=["a"]),
        a_profile(user_id="bea", town="Bonn", likes=["a"]),
        a_profile(user_id="cid", town="Rome"),
    ]
    store_events(FeatureStoreSink(server.features), events, length=L)
    server.triton = replace(server.triton, native=True)
    source = a_bundle(tmp_path_factory.mktemp("bundles") / "v1", DESCRIBED)
    promote(source, server.triton, server.features)
    return source


@pytest.fixture
def client(server: Server) -> Iterator[RankClient]:
    with RankClient(server.triton.grpc) as client:
        yield client


def test_cold_users_score_by_their_attributes_until_they_are_forgotten(
    described: Path, server: Server, client: RankClient
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    def scores(user: str) -> tuple[float, ...]:
        ranking = client.rank(user, ITEMS, request_time_ms=NOON_MS, deadline_s=30.0)
        assert ranking.status == ("cold_user" if user == "nobody" else "empty_sequence")
        return ranking.scores

    nobody, ann, bea, cid = map(scores, ("nobody", "ann", "bea", "cid"))
    assert cid == pytest.approx(nobody, rel=1e-3)  # no bundle knows who lives in Rome
    for one, other in ((ann, bea), (ann, nobody), (bea, nobody)):
        # By ratios, because random weights may make all probabilities small.
        assert np.abs(np.log(np.divide(one, other))).max() > 0.01
    forget = a_forget(user_id="ann", at_ms=NOON_MS + 1)
    sink = FeatureStoreSink(server.features)
    store_events(sink, [forget], length=L, start=10)
    assert scores("ann") == pytest.approx(nobody, rel=1e-3)
    assert scores("bea") == bea


def test_callers_with_features_of_their_own_send_the_users_too(
    described: Path, server: Server
) -> None:
    sizes = bundle.read(described).sizes
    made = onnx_export.sample(sizes, requests=2, candidates=3)
    tensors = {name: tensor.numpy() for name, tensor in made.items()}
    tensors["user_attribute_rows"] = np.array([[2, 4, 5], [3, 4, 0]])
    step = model_names.step_name(model_names.CLICK_RANKER, "v1")
    own = model_names.MODEL_INPUTS + USER_TENSORS
    expected = onnx_export.scorer(described)(tensors)
    with InferenceServerClient(server.triton.grpc) as client:
        for name in (model_names.SCORE_CLICKS, step):
            answer = client.infer(name, infer_inputs(own, tensors))
            names = ("click_probability", "ranking_score")
            for each, scores in zip(names, expected, strict=True):
                np.testing.assert_allclose(answer.as_numpy(each), scores, atol=1e-5)
        with pytest.raises(InferenceServerException, match="all of the model's tensors"):
            client.infer(step, infer_inputs(model_names.MODEL_INPUTS, tensors))


def test_a_bundle_without_user_fields_replaces_one_with_them_and_back(
    described: Path, server: Server, client: RankClient
) -> None:
    plain = a_bundle(described.with_name("v2"), PLAIN)
    promote(plain, server.triton, server.features)
    users = ("bea", "nobody")
    bea, nobody = (client.rank(user, ITEMS, deadline_s=30.0) for user in users)
    assert bea.model_version == nobody.model_version == "v2"
    assert bea.scores == pytest.approx(nobody.scores, abs=1e-6)
    promotion.rollback(server.triton)
    again = client.rank("bea", ITEMS, deadline_s=30.0)
    assert again.model_version == "v1"
    assert np.abs(np.subtract(again.scores, nobody.scores)).max() > 1e-3
