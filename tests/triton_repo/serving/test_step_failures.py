"""A step that fails on a real tritonserver: what its callers and its probe are answered."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from prometheus_client import REGISTRY
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import infer_inputs
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors import schema
from srp4ctr.ops.triton.readiness import why_not_ready
from srp4ctr.triton_repo.config import TlsConfig
from srp4ctr.triton_repo.deployment.repository_writer import step_folders
from srp4ctr.triton_repo.model_names import MODEL_INPUTS, RANK_CLICKS, SCORE_CLICKS
from tests.triton_repo.bundles import KNOWN_ITEM, inputs_of, make_bundle_in, promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.process_exits import CRASHES, watched
from tests.triton_repo.tiny_graphs import BROKEN, TOO_LARGE

RETRIES = ("srp4ctr_retries_total", {"operation": "rank"})
pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def failing(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceServerClient]:
    """A server whose model fails for some numbers of candidates."""
    make = make_bundle_in(tmp_path_factory.mktemp("bundles"))
    promote(make("v1", mark=1.0, fails=True), server.triton, server.features)
    with InferenceServerClient(server.triton.grpc) as client:
        yield client


def error_of(client: InferenceServerClient, model: str, candidates: int) -> str:
    if model == RANK_CLICKS:
        items = [[KNOWN_ITEM] * candidates]
        named = {"user_id": [["u"]], "item_ids": items}
        given = {name: np.array(each, dtype=object) for name, each in named.items()}
        inputs = infer_inputs(schema.REQUEST_INPUTS, given)
    else:
        inputs = infer_inputs(MODEL_INPUTS, inputs_of(MODEL_INPUTS, 1, candidates))
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, client_timeout=30.0)
    return f"{caught.value.status()}: {caught.value.message()}"


def test_only_what_the_caller_can_fix_is_an_invalid_argument(
    failing: InferenceServerClient,
) -> None:
    of_model = error_of(failing, SCORE_CLICKS, BROKEN)
    assert of_model.startswith("StatusCode.INVALID_ARGUMENT")
    assert "out of data bounds" in of_model
    of_ids = error_of(failing, RANK_CLICKS, BROKEN)
    assert of_ids.startswith("StatusCode.INTERNAL")
    assert "the step failed" in of_ids
    for model in (RANK_CLICKS, SCORE_CLICKS):
        no_memory = error_of(failing, model, TOO_LARGE)
        assert no_memory.startswith("StatusCode.UNAVAILABLE")
        assert "out of memory" in no_memory


@pytest.mark.parametrize("candidates", [BROKEN, TOO_LARGE])
def test_the_client_retries_a_failed_step_within_its_budget(
    server: Server, failing: InferenceServerClient, candidates: int
) -> None:
    before = REGISTRY.get_sample_value(*RETRIES) or 0.0
    with RankClient(server.triton.grpc) as client:
        for _ in range(3):
            with pytest.raises(ConnectionError):
                client.rank("u", [KNOWN_ITEM] * candidates, deadline_s=5.0)
    retries = (REGISTRY.get_sample_value(*RETRIES) or 0.0) - before
    assert 1 <= retries <= 10


def test_a_stopped_server_s_processes_end_without_a_crash(
    server: Server, failing: InferenceServerClient
) -> None:
    assert server.running is not None
    family = psutil.Process(server.running.pid).children(recursive=True)
    steps = [each.pid for each in family if "python_backend_stub" in each.exe()]
    assert steps
    with watched(steps) as signals:
        server.stop()
    server.start()
    assert not any(CRASHES & got for got in signals.values()), signals


def test_a_server_whose_promoted_model_does_not_load_is_not_ready(
    server: Server, failing: InferenceServerClient
) -> None:
    repository = Path(server.triton.repository)
    assert why_not_ready(server.triton.grpc, repository, TlsConfig()) == ""
    server.stop()
    (step,) = step_folders(repository, "v1")
    (step / bundle.HEAD_FILE).write_bytes(b"no model")
    server.start()  # --exit-on-error=false: it starts, and exports its metrics
    reason = why_not_ready(server.triton.grpc, repository, TlsConfig())
    assert "is not ready" in reason or "UNAVAILABLE" in reason
