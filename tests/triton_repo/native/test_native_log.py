"""Calls that are logged or traced are answered by the step that answers the others."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from srp4ctr.client.codec import infer_inputs
from srp4ctr.features.bundles import request_log
from srp4ctr.features.bundles.request_log import ServedRequest
from srp4ctr.features.tensors import schema
from srp4ctr.streams.events.schema import in_sample
from srp4ctr.testing.trace_collector import CollectedSpan, Collector, collecting
from srp4ctr.tracing import ENDPOINT_VARIABLE, SAMPLE_VARIABLE
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import ServedLogConfig
from tests.builders import NOON_MS
from tests.triton_repo.bundles import promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import (
    ITEMS,
    WORDS,
    answer,
    numbered,
    outcomes,
    sent,
    wait_until_native,
)
from tests.triton_repo.real_bundles import a_bundle

pytestmark = [pytest.mark.stack, pytest.mark.triton]
STEP = model_names.step_name(model_names.CLICK_RANKER, "v2")
SHARE, REQUESTS = 0.5, 80
CONTEXT = '{"page": "home", "hour": "7.5"}'


@pytest.fixture(scope="module", autouse=True)
def collector() -> Iterator[Collector]:
    """Let the server, which starts later, export all of its spans to the collector."""
    with collecting() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT_VARIABLE, found.address)
        patch.setenv(SAMPLE_VARIABLE, "1")
        yield found


@pytest.fixture(scope="module")
def logged(
    server: Server,
    client: InferenceServerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Serve a bundle half of whose requests are logged; return the log's folder."""
    folder = tmp_path_factory.mktemp("served")
    log = ServedLogConfig(share=SHARE, folder=str(folder))
    source = a_bundle(tmp_path_factory.mktemp("bundles") / "v2", WORDS)
    promote(source, replace(server.triton, served_log=log), server.features)
    return folder


def a_call(user: str = "bea") -> dict[str, Any]:
    numbers = np.arange(2 * 6, dtype=np.float32) % 5
    plain = sent([user], [[*ITEMS[:5], ""]], NOON_MS, CONTEXT)
    return numbered(plain, list(WORDS.candidate_numbers), numbers)


def test_native_answers_are_logged_as_they_were_served(
    server: Server, client: InferenceServerClient, logged: Path
) -> None:
    call = a_call()
    wait_until_native(server, client, call)
    # Several at once: the memory of a call's inputs holds the next one's as it is answered.
    names = [f"request-{number}" for number in range(REQUESTS)]
    calls = [{**call, "request_id": np.array([[name]], object)} for name in names]
    before = outcomes(server)
    with ThreadPoolExecutor(4) as callers:
        answers = callers.map(partial(answer, client, model_names.RANK_CLICKS), calls)
        made = dict(zip(names, answers, strict=True))
    while sum((added := outcomes(server) - before).values()) < REQUESTS:
        time.sleep(0.01)  # it is counted once it is answered
    assert added == {"answered": REQUESTS}
    expected = {name for name in names if in_sample(f"served:{name}", SHARE)}
    until_s = time.monotonic() + 20.0
    kept: list[ServedRequest] = []
    while {each.request_id for each in kept} != expected:
        missing = expected - {each.request_id for each in kept}
        assert time.monotonic() < until_s, sorted(missing)
        kept = [request_log.read(path) for path in request_log.newest(logged, 999)]
        time.sleep(0.1)
    assert 0 < len(expected) < REQUESTS
    tensors = python_tensors(client, call)
    for each in kept:
        answered = made[each.request_id]
        assert (each.user_id, each.item_ids) == ("bea", (*ITEMS[:5], ""))
        assert (each.time_ms, each.status, each.model_version) == (NOON_MS, "ok", "v2")
        assert each.feature_version == answered["feature_version"].item().decode()
        np.testing.assert_array_equal(each.probabilities, answered["click_probability"][0])
        assert each.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert each.tensors[name].dtype == tensor.dtype
            np.testing.assert_allclose(each.tensors[name], tensor, rtol=1e-6, atol=1e-6)


def python_tensors(client: InferenceServerClient, call: Any) -> dict[str, Any]:
    """Return the tensors that the Python step makes of a call."""
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS
    names = [spec.name for spec in model_names.MODEL_INPUTS + schema.USER_TENSORS]
    wanted = [InferRequestedOutput(name) for name in names]
    found = client.infer(STEP, infer_inputs(specs, call), outputs=wanted)
    return {name: found.as_numpy(name) for name in names}


def test_a_traced_call_is_answered_natively_and_its_spans_are_kept(
    server: Server, client: InferenceServerClient, logged: Path, collector: Collector
) -> None:
    call = a_call("ann")
    wait_until_native(server, client, call)
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS
    trace, caller = "7" * 32, "8" * 16
    before, began_ns = outcomes(server), time.time_ns()
    client.infer(
        model_names.RANK_CLICKS,
        infer_inputs(specs, call),
        parameters={"traceparent": f"00-{trace}-{caller}-01"},
    )
    ended_ns = time.time_ns()
    spans: dict[str, CollectedSpan] = {}
    until_s = time.monotonic() + 20.0
    while spans.keys() != {"rank_clicks", "assemble", "read", "encode", "score"}:
        assert time.monotonic() < until_s, spans
        spans = {each.name: each for each in collector.spans if each.trace_id == trace}
        time.sleep(0.1)
    assert outcomes(server) - before == {"answered": 1}
    answered = spans.pop("rank_clicks")
    assert answered.parent_id == caller
    assert began_ns <= answered.began_ns <= answered.ended_ns <= ended_ns
    for span in spans.values():
        assert span.parent_id == answered.span_id
        assert answered.began_ns <= span.began_ns <= span.ended_ns <= answered.ended_ns
