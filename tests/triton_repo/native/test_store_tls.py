"""The store is read over TLS, from the requested host and from no other."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from tests.certificates import Certificates, make_certificates
from tests.proxies import tls_proxy
from tests.triton_repo.native.parts import Reader

pytestmark = pytest.mark.redis
KEY, HASH = b"user\x00\r\n\xff", {b"plain": b"value", b"": bytes(range(256))}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of the store, without TLS."""
    from redis import Redis

    folder = tmp_path_factory.mktemp("store")
    with ports.reserved_ports(1) as (reserved,):
        running = broker.start_store(folder, reserved, tied=True, syncs=False)
    with Redis(host=ports.HOST, port=reserved) as opened:
        opened.hset(KEY, mapping=HASH)
        yield opened
    processes.stop(running, folder)


@pytest.fixture
def port(client: Any, certificates: Certificates) -> Iterator[int]:
    plain = client.get_connection_kwargs()["port"]
    with tls_proxy(plain, certificates) as secured:
        yield secured


@pytest.fixture
def reader_at(
    library: Any, port: int, certificates: Certificates
) -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(**more: Any) -> Reader:
        known = {"authority": str(certificates.authority).encode()}
        made.append(Reader(library, more.pop("port", port), **known | more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_fields_are_read(client: Any, reader_at: Callable[..., Reader]) -> None:
    reader, fields = reader_at(), [*HASH, b"other"]
    for _ in range(3):
        assert reader.read(KEY, *fields) == client.hmget(KEY, fields)
    assert reader_at(database=3).read(KEY, b"plain") == [None]


def test_large_commands_and_values_pass(
    client: Any, reader_at: Callable[..., Reader]
) -> None:
    client.hset(b"large", b"field", b"\r" * 10_000_000)
    reader = reader_at()
    assert reader.read(b"large", b"field") == [b"\r" * 10_000_000]
    assert reader.read(KEY, b"x" * 5_000_000, b"plain") == [None, b"value"]
    client.delete(b"large")


def test_a_connection_that_the_server_ended_is_opened_once_more(
    client: Any, reader_at: Callable[..., Reader]
) -> None:
    reader = reader_at()
    for _ in range(3):
        assert reader.read(KEY, b"plain") == [b"value"]
        assert client.client_kill_filter(_type="normal", skipme=True) == 1


def test_only_the_host_and_the_authority_are_trusted(
    client: Any, reader_at: Callable[..., Reader], tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    assert reader_at(authority=str(other.authority).encode()).read(KEY, b"plain") is None
    assert reader_at(authority=b"*").read(KEY, b"plain") is None  # the machine's own
    assert reader_at(authority=b"/no/such/file").read(KEY, b"plain") is None
    assert reader_at(host=b"localhost").read(KEY, b"plain") is None  # it is of 127.0.0.1
    assert reader_at().read(KEY, b"plain") == [b"value"]


def test_a_certificate_of_a_name_is_of_that_name_alone(
    library: Any, client: Any, tmp_path: Path
) -> None:
    plain, named = client.get_connection_kwargs()["port"], {"host": b"localhost"}
    certificates = make_certificates(tmp_path, "localhost")
    authority = str(certificates.authority).encode()
    with tls_proxy(plain, certificates) as port:
        for host, wanted in ((named, [b"value"]), ({}, None)):
            reader = Reader(library, port, authority=authority, **host)
            assert reader.read(KEY, b"plain") == wanted
            reader.close()


def test_a_server_without_tls_and_a_silent_one_are_given_up(
    client: Any, reader_at: Callable[..., Reader]
) -> None:
    plain = client.get_connection_kwargs()["port"]
    with socket.create_server((ports.HOST, 0)) as silent:
        for port in (plain, silent.getsockname()[1]):
            assert reader_at(port=port, timeout_ms=500).read(KEY, b"plain") is None
