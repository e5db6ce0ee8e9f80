"""A store that answers over TLS alone is read by the native step, too."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tritonclient.grpc import InferenceServerClient

from srp4ctr.embedded.ports import HOST
from srp4ctr.triton_repo import model_names
from tests.builders import NOON_MS
from tests.certificates import make_certificates
from tests.proxies import tls_proxy
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import (
    ITEMS,
    answer,
    check_alike,
    sent,
    wait_until_native,
)

pytestmark = [pytest.mark.stack, pytest.mark.triton]


@pytest.fixture(scope="module")
def server(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of the other tests, started again with a store behind TLS."""
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    server.stop()
    store = int(server.features.redis.rpartition(":")[2])
    with tls_proxy(store, certificates) as port, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRP4CTR_FEATURES__REDIS_TLS", "true")
        patch.setenv("SRP4CTR_FEATURES__REDIS_CA_FILE", str(certificates.authority))
        address = f"{HOST}:{port}"
        server.plan = replace(server.plan, redis=address)
        server.features = replace(
            server.features,
            redis=address,
            redis_tls=True,
            redis_ca_file=str(certificates.authority),
        )
        server.start()
        yield server


@pytest.mark.parametrize("user", ["bea", "someone new"])
def test_calls_are_answered_natively_and_alike(
    server: Server, client: InferenceServerClient, user: str
) -> None:
    tensors = sent([user], [ITEMS], NOON_MS, None)
    wait_until_native(server, client, tensors)
    check_alike(client, tensors)
    wanted = b"ok" if user == "bea" else b"cold_user"
    assert answer(client, model_names.RANK_CLICKS, tensors)["status"].item() == wanted
