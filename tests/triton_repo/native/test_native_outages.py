"""Where the store closes connections or hangs, calls are answered all the same."""

import pytest
from redis import Redis
from tritonclient.grpc import InferenceServerClient

from srp4ctr.triton_repo import model_names
from tests.builders import NOON_MS
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import (
    ITEMS,
    answer,
    python_calls,
    sent,
    wait_until_native,
)

pytestmark = [pytest.mark.stack, pytest.mark.triton]


def test_the_store_may_close_connections(
    server: Server, client: InferenceServerClient
) -> None:
    host, _, port = server.features.redis.partition(":")
    tensors = sent(["bea"], [ITEMS], NOON_MS, None)
    wait_until_native(server, client, tensors)
    Redis(host=host, port=int(port)).client_kill_filter(_type="normal", skipme=True)
    found = answer(client, model_names.RANK_CLICKS, tensors)
    assert found["status"].item() == b"ok"
    wait_until_native(server, client, tensors)


def test_a_store_that_hangs_is_left_to_the_python_step(
    server: Server, client: InferenceServerClient
) -> None:
    host, _, port = server.features.redis.partition(":")
    tensors = sent(["bea"], [ITEMS], NOON_MS, None)
    wait_until_native(server, client, tensors)
    with Redis(host=host, port=int(port)) as store:
        store.client_pause(6000)
        before = python_calls(server)
        statuses = {
            answer(client, model_names.RANK_CLICKS, tensors)["status"].item()
            for _ in range(4)
        }
        assert b"store_unavailable" in statuses
        assert python_calls(server) - before >= 3
    wait_until_native(server, client, tensors)
