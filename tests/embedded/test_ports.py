"""Two stacks on one machine get different ports."""

import socket

from srp4ctr.embedded import ports


def test_reserved_ports_are_distinct_and_free() -> None:
    with ports.reserved_ports(5) as reserved:
        assert len(set(reserved)) == 5
        for port in reserved:
            with socket.socket() as server:
                server.bind((ports.HOST, port))


def test_a_reserved_port_is_not_given_twice() -> None:
    with ports.reserved_ports(1) as (port,):
        assert ports._claim(port) is None
    claim = ports._claim(port)
    assert claim is not None
    claim.close()


def test_a_port_in_use_is_not_reserved() -> None:
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        server.listen()
        assert ports._claim(server.getsockname()[1]) is None


def test_an_open_port_is_one_that_accepts() -> None:
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        port = server.getsockname()[1]
        assert not ports.is_open(port)
        server.listen()
        assert ports.is_open(port)


def test_a_port_with_connections_of_a_server_that_ended_is_free() -> None:
    server = socket.create_server((ports.HOST, 0))
    port = server.getsockname()[1]
    client = socket.create_connection((ports.HOST, port))
    accepted, _ = server.accept()
    accepted.close()  # this side waits (TIME_WAIT), as a stopped broker's does
    assert client.recv(1) == b""
    client.close()
    assert ports._claim(port) is None  # the server still listens
    server.close()
    claim = ports._claim(port)
    assert claim is not None
    claim.close()


def test_the_first_free_one_of_the_wanted_ports_is_taken() -> None:
    with ports.reserved_ports(2) as (taken, _):
        with ports.reserved_ports(1) as (free,):
            pass
        with ports.reserved_ports(1, [(taken, free)]) as (port,):
            assert port == free


def test_wanted_ports_are_had_again_where_they_are_free() -> None:
    with ports.reserved_ports(3) as before:
        pass
    wanted = [(port,) for port in before]
    with (
        ports.reserved_ports(1, wanted[:1]) as (taken,),
        ports.reserved_ports(3, wanted) as again,
    ):
        assert taken == before[0] != again[0]
        assert again[1:] == before[1:]
