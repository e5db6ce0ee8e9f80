"""The store is read as redis-py reads it, and whatever a server sends, a call ends."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.embedded import ports
from tests.triton_repo.native.parts import Reader, Value, sized

WRONG, INCOMPLETE, WHOLE, LARGE = range(4)
TIMEOUT_S, SLACK_S = 0.5, 1.0  # of a server that is too slow; of a busy machine
TWO = b"*2\r\n$1\r\na\r\n$-1\r\n"
TOO_LARGE = (b"$16777217\r", b"$999999999\r")
# What a server sends in answer to a command: bytes, and pauses in seconds.
Turn = Sequence[bytes | float]
# Between two calls: a NUL, a line's end, no bytes at all, and nil.
HASH = {b"plain": b"value", b"\x00\r\n\xff": bytes(range(256)), b"empty": b""}


def answer_of(values: Sequence[bytes | None]) -> bytes:
    texts = [b"$-1\r\n" if v is None else b"$%d\r\n%b\r\n" % (len(v), v) for v in values]
    return b"*%d\r\n%b" % (len(values), b"".join(texts))


@settings(deadline=None)
@given(values=st.lists(st.none() | st.binary(), min_size=1), noise=st.binary(min_size=1))
def test_an_answer_is_incomplete_until_it_is_whole(
    library: Any, values: list[bytes | None], noise: bytes
) -> None:
    text, found = answer_of(values), (Value * len(values))()
    for end in range(len(text)):
        assert library.parse(*sized(text[:end]), len(values), found) == INCOMPLETE
    assert library.parse(*sized(text), len(values), found) == WHOLE
    assert [each.length for each in found] == [-1 if v is None else len(v) for v in values]
    assert library.parse(*sized(text + noise), len(values), found) == WRONG


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from([*"*$-+:_0129\r\n", "\r\n", "$1\r\n", "*2\r\n"])))
def test_only_an_answer_is_whole(library: Any, parts: list[str]) -> None:
    text, found = "".join(["*2\r\n", *parts]).encode(), (Value * 2)()
    if library.parse(*sized(text), 2, found) == WHOLE:
        lengths = [each.length for each in found]
        assert len(text) == 4 + sum(5 if n < 0 else n + 6 for n in lengths)


@contextmanager
def answering(*connections: Sequence[Turn]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the port of a server, and the commands that it has received.

    Of each connection it answers as many commands as there are turns, then ends it.
    """
    is_over, received = threading.Event(), list[bytes]()

    def serve(peer: socket.socket, turns: Sequence[Turn]) -> None:
        with suppress(OSError), peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for turn in turns:
                received.append(peer.recv(65_536))
                for each in turn:
                    if isinstance(each, bytes):
                        peer.sendall(each)
                    else:
                        is_over.wait(each)

    def accept() -> None:
        for turns in connections:
            with suppress(OSError):
                arguments = (listener.accept()[0], turns)
                threading.Thread(target=serve, args=arguments, daemon=True).start()

    with socket.create_server((ports.HOST, 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], received
        is_over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


ReaderOf = Callable[..., Reader]


@pytest.fixture
def reader_of(library: Any) -> Iterator[ReaderOf]:
    made: list[Reader] = []

    def make(port: int, **more: Any) -> Reader:
        made.append(Reader(library, port, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"-ERR no\r\n",
        b"+OK\r\n",
        b":2\r\n",
        b"$-1\r\n",
        b"\x00\xff" * 40,
        b"*-1\r\n",
        b"*-2\r\n",
        b"*\r\n",
        b"*2\n",
        b"*2\r$1\r\n",
        b"* 2\r\n",
        b"*+2\r\n",
        b"*1\r\n$1\r\na\r\n",
        b"*3\r\n$1\r\na\r\n$-1\r\n$-1\r\n",
        b"*" + b"0" * 70_000,
        b"*4294967298\r\n$1\r\na\r\n$-1\r\n",
        b"*2\r\n$-5\r\n",
        b"*2\r\n$-0\r\n",
        b"*2\r\n$--1\r\n",
        b"*2\r\n$99999999999\r\na\r\n",
        b"*2\r\n$18446744073709551615\r\na\r\n",
        b"*2\r\n$999999999\r\na\r\n",
        b"*2\r\n$16777217\r\na\r\n",
        b"*2\r\n$3\r\na\r\n$-1\r\n",
        b"*2\r\n$1\r\nabc\r\n$-1\r\n",
        b"*2\r\n$1\r\na\r\n:1\r\n",
        b"*2\r\n$1\r\na\r\n-ERR no\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n",
        b"*2\r\n_\r\n_\r\n",
        TWO + b"\r\n",
        TWO + TWO,
        TWO[:-1],
        TWO[:9],
        TWO[:1],
        b"",
    ],
)
def test_a_wrong_answer_ends_the_connection(
    library: Any, reader_of: ReaderOf, answer: bytes
) -> None:
    found = library.parse(*sized(answer), 2, (Value * 2)())
    expected = LARGE if answer[4:].startswith(TOO_LARGE) else WRONG
    assert found == (INCOMPLETE if TWO.startswith(answer) else expected)
    with answering([[answer]], [[TWO], [answer]], []) as (port, _):
        reader = reader_of(port)
        assert reader.read(b"key", b"1", b"2") is None
        assert reader.read(b"key", b"1", b"2") == [b"a", None]
        assert reader.read(b"key", b"1", b"2") is None


def test_an_answer_of_more_than_16_mb_ends_the_connection(reader_of: ReaderOf) -> None:
    most = 16_777_216 - len(answer_of([b"", None])) - len("16777216") + 1
    for length, is_read in ((most, True), (most + 1, False)):
        value = bytes(length)
        with answering([[answer_of([value, None])]]) as (port, _):
            found = reader_of(port).read(b"key", b"1", b"2")
        assert found == ([value, None] if is_read else None)


def test_an_answer_may_come_in_pieces(reader_of: ReaderOf) -> None:
    text = answer_of([b"\r\n$1\r\n", None, b"", bytes(40_000)])
    pieces = [text[n : n + 1] for n in range(40)] + [text[40:20_000], text[20_000:]]
    paused = [part for piece in pieces for part in (piece, 0.002)]
    with answering([paused]) as (port, received):
        found = reader_of(port).read(b"a\r\nb", b"1", b"2", b"", b"\x00")
    assert found == [b"\r\n$1\r\n", None, b"", bytes(40_000)]
    command = [b"HMGET", b"a\r\nb", b"1", b"2", b"", b"\x00"]
    assert received == [answer_of(command)]


@pytest.mark.parametrize(
    ("turn", "timeouts"),
    [([9.0], 1), ([b"*2\r\n", 9.0], 2), ([b"*2\r\n$99\r\n", *[b"a", 0.05] * 60], 2)],
)
def test_a_server_that_is_too_slow_is_left(
    reader_of: ReaderOf, turn: Turn, timeouts: int
) -> None:
    with answering([[TWO], turn], [turn], [[TWO]]) as (port, received):
        reader = reader_of(port, timeout_ms=int(TIMEOUT_S * 1000))
        assert reader.read(b"key", b"1", b"2") == [b"a", None]
        for _ in ("kept", "new"):
            started = time.monotonic()
            assert reader.read(b"key", b"1", b"2") is None
            took_s = time.monotonic() - started
            assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S * timeouts + SLACK_S
        assert reader.read(b"key", b"1", b"2") == [b"a", None]
    assert len(received) == 4  # after a timeout nothing was sent again


def test_a_connection_that_was_ended_is_opened_once_more(reader_of: ReaderOf) -> None:
    with answering([[TWO]], [[TWO], []], [[]], [[TWO], [b"*"]], [[TWO]]) as (port, got):
        reader = reader_of(port)
        for number in range(3):  # the third time, the new connection is ended as well
            assert (reader.read(b"%d" % number, b"1", b"2") is None) == (number == 2)
        assert reader.read(b"3", b"1", b"2") == [b"a", None]
        assert reader.read(b"4", b"1", b"2") is None  # of the answer something had come
    sent = [command.split(b"\r\n")[4] for command in got if command]
    assert sent == [b"0", b"1", b"2", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    "reply", [b"-ERR no\r\n", b"+OKAY\r\n", b"+OK\r\n" * 2, b"", b":1"]
)
@pytest.mark.parametrize("more", [{"password": b"secret"}, {"database": 2}])
def test_nothing_is_read_where_the_greeting_fails(
    reader_of: ReaderOf, more: dict[str, Any], reply: bytes
) -> None:
    with answering([[reply]]) as (port, received):
        assert reader_of(port, **more).read(b"key", b"1", b"2") is None
    words = [b"AUTH", b"secret"] if "password" in more else [b"SELECT", b"2"]
    assert received == [answer_of(words)]


def test_a_greeting_may_come_in_pieces(reader_of: ReaderOf) -> None:
    pieces = [part for n in range(5) for part in (b"+OK\r\n"[n : n + 1], 0.002)]
    with answering([pieces, pieces, [TWO]]) as (port, received):
        reader = reader_of(port, username=b"u", password=b"p", database=2)
        assert reader.read(b"key", b"1", b"2") == [b"a", None]
    commands = [b"AUTH", b"u", b"p"], [b"SELECT", b"2"], [b"HMGET", b"key", b"1", b"2"]
    assert received == [answer_of(command) for command in commands]


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0},
        {"port": 65_536},
        {"port": -1},
        {"host": b""},
        {"host": b"x" * 256},
        {"host": b"x" * 64},  # a label has 63
        {"password": b"x" * 512},
        {"username": b"x" * 128},
    ],
)
def test_a_wrong_address_is_refused(reader_of: ReaderOf, wrong: dict[str, Any]) -> None:
    assert reader_of(**({"port": 1} | wrong)).read(b"key", b"1") is None


def test_a_port_without_a_listener_gives_no_row(reader_of: ReaderOf) -> None:
    with socket.create_server((ports.HOST, 0)) as taken:
        port = taken.getsockname()[1]
    assert reader_of(port).read(b"key", b"1") is None
    assert reader_of(port).read(b"key") is None  # no fields
