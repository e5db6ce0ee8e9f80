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
    check_alike,
    is_native,
    outcomes,
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


def test_a_damaged_row_affects_its_user_only(
    server: Server, client: InferenceServerClient
) -> None:
    host, _, port = server.features.redis.partition(":")
    tensors = sent(["bea"], [ITEMS], NOON_MS, None)
    damaged = sent(["dan"], [ITEMS], NOON_MS, None)
    with Redis(host=host, port=int(port)) as store:
        [key] = (each for each in store.scan_iter() if b"dan" in each)
        stored = store.dump(key)
        store.delete(key)
        store.set(key, "no hash")
        wait_until_native(server, client, tensors)
        before = outcomes(server)
        for _ in range(3):  # as many outages would be one for all users
            found = answer(client, model_names.RANK_CLICKS, damaged)
            assert found["status"].item() == b"store_unavailable"
            assert is_native(server, client, tensors)
        check_alike(client, tensors)
        store.restore(key, 0, stored, replace=True)
    after = outcomes(server)
    assert after["unreadable_row"] - before["unreadable_row"] == 3
    assert after["store_down"] == before["store_down"]
    wait_until_native(server, client, damaged)


def test_a_store_that_hangs_is_left_to_the_python_step(
    server: Server, client: InferenceServerClient
) -> None:
    host, _, port = server.features.redis.partition(":")
    tensors = sent(["bea"], [ITEMS], NOON_MS, None)
    wait_until_native(server, client, tensors)
    with Redis(host=host, port=int(port)) as store:
        store.client_pause(6000)
        before, counted = python_calls(server), outcomes(server)
        statuses = {
            answer(client, model_names.RANK_CLICKS, tensors)["status"].item()
            for _ in range(4)
        }
        assert b"store_unavailable" in statuses
        assert python_calls(server) - before >= 3
        assert outcomes(server)["store_down"] - counted["store_down"] >= 3
    wait_until_native(server, client, tensors)
