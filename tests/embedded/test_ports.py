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
        assert ports._claim(server.getsockname()[1]) is None


def test_an_open_port_is_one_that_accepts() -> None:
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        port = server.getsockname()[1]
        assert not ports.is_open(port)
        server.listen()
        assert ports.is_open(port)


def test_wanted_ports_are_had_again_where_they_are_free() -> None:
    with ports.reserved_ports(3) as before:
        pass
    with (
        ports.reserved_ports(1, before[:1]) as (taken,),
        ports.reserved_ports(3, before) as again,
    ):
        assert taken == before[0] != again[0]
        assert again[1:] == before[1:]
