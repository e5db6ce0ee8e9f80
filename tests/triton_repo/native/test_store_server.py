"""What is in a real store is read, also with a password and after it ended a connection."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from tests.triton_repo.native.parts import Reader

pytestmark = pytest.mark.redis
BINARY = bytes(range(256))
HASH = {b"plain": b"value", b"\x00\r\n\xff": BINARY, b"empty": b"", b"": b"unnamed"}
STORE_LARGEST = 1 << 24  # of store.h
KEY = b"user\x00\r\n\xff"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("store")
    with ports.reserved_ports(1) as (reserved,):
        running = broker.start_store(folder, reserved, tied=True, syncs=False)
    yield reserved
    processes.stop(running, folder)


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    from redis import Redis

    with Redis(host=ports.HOST, port=port) as opened:
        opened.flushall()
        opened.hset(KEY, mapping=HASH)
        yield opened


@pytest.fixture
def reader_at(library: Any, port: int) -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(**more: Any) -> Reader:
        made.append(Reader(library, port, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def reader(reader_at: Callable[..., Reader]) -> Reader:
    return reader_at()


def test_fields_are_read_and_others_are_nil(client: Any, reader: Reader) -> None:
    fields = [*HASH, b"other", *HASH]
    for _ in range(3):
        assert reader.read(KEY, *fields) == client.hmget(KEY, fields)
    assert reader.read(b"other", *HASH) == [None] * len(HASH)
    assert reader.read(b"", b"") == [None]
    assert reader.read(KEY, b"x" * 1_000_000) == [None]


def test_many_fields(client: Any, reader: Reader) -> None:
    fields = [b"%d" % number for number in range(5_000)]
    client.hset(b"many", mapping={field: field * 9 for field in fields[::2]})
    assert reader.read(b"many", *fields) == client.hmget(b"many", fields)


def test_large_values_are_read_until_16_mb(client: Any, reader: Reader) -> None:
    for size in (100_000, 15_000_000, 17_000_000):
        client.hset(b"large", b"field", b"\r" * size)
        wanted = None if size > 16_777_216 else [b"\r" * size]
        assert reader.read(b"large", b"field") == wanted
        assert reader.read(KEY, b"plain") == [b"value"]
    client.delete(b"large")


def test_an_error_ends_the_connection(client: Any, reader: Reader) -> None:
    client.set(b"text", b"1")
    assert reader.read(b"text", b"field") is None  # WRONGTYPE
    assert reader.read(KEY, b"plain") == [b"value"]


def test_a_connection_that_the_server_ended_is_opened_once_more(
    client: Any, reader: Reader
) -> None:
    assert reader.read(KEY, b"plain") == [b"value"]
    for _ in range(3):
        assert client.client_kill_filter(_type="normal", skipme=True) == 1
        assert reader.read(KEY, b"plain") == [b"value"]
        assert reader.read(KEY, b"plain") == [b"value"]  # on the same


def test_another_database(client: Any, reader_at: Callable[..., Reader]) -> None:
    from redis import Redis

    with Redis(host=ports.HOST, port=client.get_connection_kwargs()["port"], db=3) as other:
        other.hset(KEY, b"plain", b"of 3")
    assert reader_at(database=3).read(KEY, b"plain") == [b"of 3"]
    assert reader_at(database=999).read(KEY, b"plain") is None


def test_a_password_with_a_user_and_without(
    client: Any, reader_at: Callable[..., Reader]
) -> None:
    client.acl_setuser(
        "reader", enabled=True, passwords=["+p\r\n $"], keys=["*"], commands=["+hmget"]
    )
    as_user = {"username": b"reader", "password": b"p\r\n $"}
    assert reader_at(**as_user).read(KEY, b"plain") == [b"value"]
    assert reader_at(**as_user | {"password": b"p"}).read(KEY, b"plain") is None
    client.config_set("requirepass", "secret")
    try:
        assert reader_at(password=b"secret").read(KEY, b"plain") == [b"value"]
        for wrong in ({}, {"password": b"secrets"}, {"username": b"default"}):
            assert reader_at(**wrong).read(KEY, b"plain") is None
    finally:
        client.config_set("requirepass", "")


def test_a_name_is_resolved(client: Any, reader_at: Callable[..., Reader]) -> None:
    assert reader_at(host=b"localhost").read(KEY, b"plain") == [b"value"]


def test_a_key_that_cannot_be_read_is_no_outage(client: Any, reader: Reader) -> None:
    client.set(b"text", b"no hash")
    client.hset(b"large", b"plain", bytes(STORE_LARGEST + 1))
    many = {b"field %d" % number: bytes(STORE_LARGEST // 8) for number in range(9)}
    client.hset(b"many", mapping=many)
    for key, fields in ((b"text", [b"plain"]), (b"large", [b"plain"]), (b"many", many)):
        assert reader.read(key, *fields) is None
        assert reader.is_unreadable
        assert reader.read(KEY, *HASH) == [*HASH.values()]


def test_a_server_that_refuses_to_read_has_an_outage(
    client: Any, reader_at: Callable[..., Reader]
) -> None:
    reader = reader_at(database=99)
    assert reader.read(KEY, *HASH) is None
    assert not reader.is_unreadable
