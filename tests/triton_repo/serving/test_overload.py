"""More calls than a server can answer: those too many are refused at once, clearly."""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import infer_inputs
from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import ports
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.serving.backlog import METRICS_PORT, Backlog, WaitingCalls
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
    assert "queued for too long" in refusal
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
    assert all("queued for too long" in each for each in refused)


def test_a_full_canary_does_not_double_the_load(
    server: Server, crowded: str, make_bundle: MakeBundle
) -> None:
    small = replace(server.triton, instances=1, max_wait_ms=WAIT_MS)
    canary = make_bundle("v2", mark=2.0, work=1500)
    everybody = replace(small, canary_share=1.0)
    promote(canary, everybody, server.features, canary=True)
    before = REGISTRY.get_sample_value(*RETRIES) or 0.0
    refused: list[str] = []
    answered: Counter[str] = Counter()
    with RankClient(crowded) as client:

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


def test_a_call_that_finds_all_processes_busy_waits_for_one_and_no_longer(
    server: Server, make_bundle: MakeBundle
) -> None:
    one = replace(server.triton, instances=1)
    promote(make_bundle("v3", mark=1.0, work=500), one, server.features)
    with RankClient(server.triton.grpc) as client:

        def took_s() -> float:
            began = time.monotonic()
            client.rank("u", [KNOWN_ITEM], deadline_s=60.0)
            return time.monotonic() - began

        alone_s = min(took_s() for _ in range(5))
        with ThreadPoolExecutor(2) as pool:
            second_s = []
            for _ in range(8):
                first = pool.submit(took_s)
                time.sleep(alone_s / 2)
                second_s.append(took_s())
                first.result()
    # With a queue policy in Triton's configuration each of them waits for half a second.
    assert statistics.median(second_s) < alone_s + 0.4


def test_the_backlog_is_looked_at_only_when_the_process_is_busy() -> None:
    now, looks = [0.0], []

    def look() -> float:
        looks.append(now[0])
        return 100.0

    backlog = Backlog(look, 2, 0.05, lambda: now[0])

    def answer(took_s: float, idle_s: float, calls: int = 1) -> list[bool]:
        late = backlog.begin([0.0] * calls)
        now[0] += took_s
        backlog.end(late.count(False))
        now[0] += idle_s
        return late

    for _ in range(100):
        assert answer(took_s=0.005, idle_s=0.005) == [False]
    assert not looks
    refused = sum(answer(took_s=0.01, idle_s=0.0).count(True) for _ in range(8))
    assert looks
    assert refused


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_of_calls_that_wait_as_many_are_refused_as_are_too_many(processes: int) -> None:
    now, each_s, limit_s = 0.0, 0.01, 0.2
    waiting, answered, refused, waits = [0.0] * 200, 0, 0, []  # their arrivals, first first
    backlog = Backlog(lambda: len(waiting), processes, limit_s, lambda: now)
    arrives_at = now
    while now < 20.0:
        while arrives_at <= now:  # twice what the processes can answer
            waiting.append(arrives_at)
            arrives_at += each_s / processes / 2
        taken = [waiting.pop(0) for _ in range(processes) if waiting]
        late = backlog.begin([0.0] * (len(taken) // processes or 1))
        if late[0]:
            refused += len(taken)
        else:
            waits += [now - each for each in taken] if now > 5.0 else []
            answered += len(taken)
            now += each_s
        backlog.end(late.count(False))
        now += 1e-4
    assert max(waits) <= limit_s
    assert answered >= 0.9 * 20.0 / each_s * processes
    assert refused


def test_a_call_may_have_a_limit_of_its_own() -> None:
    now = 0.0
    backlog = Backlog(lambda: 10.0, 1, 1.0, lambda: now)
    for _ in range(8):
        backlog.begin([0.0])
        now += 0.01
        backlog.end(1)
    assert backlog.begin([0.01, 0.0, 0.5]) == [True, False, False]


def test_without_triton_s_metrics_no_call_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ports.reserved_ports(1) as (nobody,):
        count = WaitingCalls("click_ranker_v1", {METRICS_PORT: str(nobody)})
        assert [count(), count()] == [0.0, 0.0]
    assert len(caplog.records) == 1
    assert "no call is refused" in caplog.text
