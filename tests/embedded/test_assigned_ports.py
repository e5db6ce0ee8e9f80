"""The ports of a stack: the only one, one of two, and a restarted one."""

import json
import socket
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from srp4ctr.embedded import ports
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.ports import PARTS, StackPart, assigned_ports

LATER = [part.name for part in PARTS if part.starts_later and part.well_known]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Replace the well-known ports, which another program may have.

    As they, the stand-ins are none of the random ports' range.
    """
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(ports, "_FIRST", 10_000)
        elsewhere.setattr(ports, "_LAST", ports._FIRST + 9_000)
        with ports.reserved_ports(len(PARTS)) as free:
            pass
        chosen = dict(zip((part.name for part in PARTS), free, strict=True))
    stand_ins = tuple(
        StackPart(
            name=part.name,
            title=part.title,
            well_known=chosen[part.name] if part.well_known else 0,
            starts_later=part.starts_later,
        )
        for part in PARTS
    )
    monkeypatch.setattr(ports, "PARTS", stand_ins)
    return {part.name: part.well_known for part in stand_ins if part.well_known}


def assigned(folder: Path, well_known: bool = True, keeps: bool = False) -> dict[str, int]:
    """Return the ports of a stack in ``folder`` that has started and ended."""
    folder.mkdir(exist_ok=True)
    with assigned_ports(folder, prefers_well_known=well_known, keeps_former=keeps) as free:
        return dict(free)


def listening(stack: ExitStack, port: int) -> None:
    """Have a server listen on ``port`` until ``stack`` is closed."""
    stack.enter_context(socket.create_server((ports.HOST, port)))


def test_the_well_known_ports_are_taken_where_they_are_free(
    known: dict[str, int], tmp_path: Path
) -> None:
    assert assigned(tmp_path).items() >= known.items()


def test_a_taken_port_is_replaced_and_only_that(
    known: dict[str, int], tmp_path: Path
) -> None:
    with ExitStack() as servers:
        listening(servers, known["redis_port"])
        found = assigned(tmp_path)
    assert {n for n, port in known.items() if found[n] != port} == {"redis_port"}


def test_two_stacks_that_start_at_once_share_no_port(
    known: dict[str, int], tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    with assigned_ports(folder, prefers_well_known=True, keeps_former=False) as first:
        second = assigned(tmp_path / "other")
    assert not set(first.values()) & set(second.values())


def test_a_second_stack_leaves_the_ports_of_parts_that_the_first_starts_later(
    known: dict[str, int], tmp_path: Path
) -> None:
    with ExitStack() as servers:
        listening(servers, known["kafka_port"])  # of the first, whose worker is to come
        for keeps in (False, True):
            found = assigned(tmp_path, keeps=keeps)
            assert not {found[name] for name in LATER} & {known[name] for name in LATER}
            values = [known.get(part.name, found[part.name]) for part in PARTS]
            (tmp_path / "ports.json").write_text(json.dumps(values))


def test_no_stack_takes_the_topics_that_another_ones_worker_would_read(
    known: dict[str, int], tmp_path: Path
) -> None:
    with ExitStack() as servers:
        listening(servers, known["worker_metrics_port"])
        assert not set(assigned(tmp_path).values()) & set(known.values())


def test_random_ports_are_none_of_the_well_known_ones(
    known: dict[str, int], tmp_path: Path
) -> None:
    assert not set(assigned(tmp_path, well_known=False).values()) & set(known.values())


def test_a_restart_keeps_the_ports_and_a_stop_tries_the_well_known_ones(
    known: dict[str, int], tmp_path: Path
) -> None:
    former = assigned(tmp_path, well_known=False)
    assert assigned(tmp_path, keeps=True) == former
    assert assigned(tmp_path).items() >= known.items()


def test_a_worker_that_outlived_its_stack_keeps_all_ports(
    known: dict[str, int], tmp_path: Path
) -> None:
    former = assigned(tmp_path, well_known=False)
    with ExitStack() as servers:
        listening(servers, former["worker_metrics_port"])
        assert assigned(tmp_path) == former


def usual_addresses() -> Addresses:
    """Return the addresses of a stack that has every well-known port."""
    known = {part.name: part.well_known or 1 for part in PARTS}
    names = {field.name for field in fields(Addresses)} & known.keys()
    ports_of: dict[str, Any] = {name: known[name] for name in names}
    return Addresses(data_dir="d", broker="noida", **ports_of)


def test_one_line_names_the_ports_that_are_others() -> None:
    assert usual_addresses().moved_sentence() == ""
    moved = replace(usual_addresses(), kafka_port=5, prometheus_port=0)
    assert moved.moved_sentence().endswith("ones: Kafka 9092 → 5")
