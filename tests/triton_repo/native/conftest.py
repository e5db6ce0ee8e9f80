"""The parts in C, compiled once for a process, and a server with a native step."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from tests.builders import NOON_MS, an_item
from tests.features.stored import store_events
from tests.triton_repo.bundles import promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.native import parts
from tests.triton_repo.native.native_calls import ITEMS, WORDS, events, profile_of
from tests.triton_repo.real_bundles import a_bundle
from tests.triton_repo.tiny_graphs import L


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return parts.build(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def server(server: Server) -> Server:
    server.triton = replace(server.triton, native=True)
    return server


@pytest.fixture(scope="module")
def client(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceServerClient]:
    """A client of a server with a native step, whose users and items are stored."""
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(server.features)
    store_events(sink, sorted(events(), key=lambda e: e.occurred_at), length=L)
    described = [an_item(item, at_ms=NOON_MS, colour="red") for item in ITEMS[:4]]
    sink.write_profiles([profile_of(update) for update in described])
    source = a_bundle(tmp_path_factory.mktemp("bundles") / "v1", WORDS)
    triton = replace(server.triton, max_candidates=12)
    promote(source, triton, server.features)
    with InferenceServerClient(server.triton.grpc) as found:
        yield found
