"""More calls than a server can answer: those too many are refused at once, clearly."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import infer_inputs
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo import model_names
from tests.triton_repo.bundles import KNOWN_ITEM, MakeBundle, promote
from tests.triton_repo.conftest import Server

RETRIES = ("srp4ctr_retries_total", {"operation": "rank"})
pytestmark = pytest.mark.triton
CALLERS, CALLS, WAIT_MS = 12, 6, 20.0


@pytest.fixture
def crowded(server: Server, make_bundle: MakeBundle) -> str:
    """The address of a server with one slow process, for which no call waits long."""
    small = replace(server.triton, instances=1, max_wait_ms=WAIT_MS)
    source = make_bundle("v1", mark=1.0, work=1500)
    promote(source, small, server.features)
    return server.triton.grpc


def test_calls_too_many_are_refused_and_the_others_answered(crowded: str) -> None:
    tensors = {"user_id": [["u"]], "item_ids": [[KNOWN_ITEM]]}
    arrays = {name: np.array(each, dtype=object) for name, each in tensors.items()}
    seen: Counter[str] = Counter()

    def call() -> None:
        with InferenceServerClient(crowded) as client:
            inputs = infer_inputs(schema.REQUEST_INPUTS, arrays)
            for _ in range(CALLS):
                try:
                    client.infer(model_names.RANK_CLICKS, inputs, client_timeout=60.0)
                    seen["answered"] += 1
                except InferenceServerException as error:
                    seen[f"{error.status()}: {error.message()}"] += 1

    in_parallel(call)
    assert seen.total() == CALLERS * CALLS
    assert seen.pop("answered") >= CALLS
    [(refusal, count)] = seen.items()
    assert refusal.startswith("StatusCode.UNAVAILABLE")
    assert "Request timeout expired" in refusal
    assert count >= CALLS


def test_the_client_does_not_retry_a_full_server_again_and_again(crowded: str) -> None:
    before = REGISTRY.get_sample_value(*RETRIES) or 0.0
    refused: list[str] = []
    with RankClient(crowded) as client:  # one for all callers, and one budget

        def call() -> None:
            for _ in range(CALLS):
                try:
                    client.rank("u", [KNOWN_ITEM], deadline_s=60.0)
                except ConnectionError as error:
                    refused.append(str(error))

        in_parallel(call)
    retries = (REGISTRY.get_sample_value(*RETRIES) or 0.0) - before
    assert 1 <= retries <= 10 + 0.1 * CALLERS * CALLS
    assert refused
    assert all("Request timeout expired" in each for each in refused)


def test_a_full_canary_does_not_double_the_load(
    server: Server, crowded: str, make_bundle: MakeBundle
) -> None:
    small = replace(server.triton, instances=1, max_wait_ms=WAIT_MS)
    canary = make_bundle("v2", mark=2.0, work=1500)
    promote(canary, small, server.features, canary=True)
    before = REGISTRY.get_sample_value(*RETRIES) or 0.0
    refused: list[str] = []
    answered: Counter[str] = Counter()
    with RankClient(crowded, canary_share=1.0) as client:

        def call() -> None:
            for _ in range(CALLS):
                try:
                    answer = client.rank("u", [KNOWN_ITEM], deadline_s=60.0)
                    answered[answer.model_version] += 1
                except ConnectionError as error:
                    refused.append(str(error))

        in_parallel(call)
    retries = (REGISTRY.get_sample_value(*RETRIES) or 0.0) - before
    assert retries <= 10 + 0.1 * CALLERS * CALLS
    assert len(refused) > CALLS
    assert answered["v2"] >= CALLS  # a full canary is still there


def in_parallel(call: Callable[[], None]) -> None:
    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
