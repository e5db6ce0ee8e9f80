"""The embedded stack for real: up, found again, down; two at once."""

import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from tritonclient.grpc import InferenceServerClient

from srp4ctr import processes
from srp4ctr.embedded import ports, stack
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.config import STACK_FILE, EmbeddedConfig

pytestmark = pytest.mark.stack


@pytest.fixture
def config(tmp_path: Path) -> Iterator[EmbeddedConfig]:
    made = EmbeddedConfig(data_dir=str(tmp_path / "data"), ports="random")
    yield made
    stack.down(made)


def test_a_started_stack_answers_and_its_file_says_where(config: EmbeddedConfig) -> None:
    addresses = stack.up(config, tied=True)
    written = tomllib.loads((Path(config.data_dir) / STACK_FILE).read_text())
    for section, values in addresses.settings().items():
        assert written[section] | values == written[section]
    admin = KafkaAdminClient(bootstrap_servers=written["kafka"]["bootstrap"])
    admin.close()
    with InferenceServerClient(written["triton"]["grpc"]) as client:
        assert client.is_server_ready()
    assert stack.status(config).ended == ()


def test_a_stopped_stack_has_no_process_and_keeps_its_data(
    config: EmbeddedConfig,
) -> None:
    stack.up(config, tied=True)
    running = stack.status(config).running
    assert set(stack.down(config)) == {each.name for each in running}
    assert not any(each.is_alive() for each in running)
    assert stack.status(config) == stack.StackStatus(addresses=None, running=(), ended=())
    assert (Path(config.data_dir) / "store").is_dir()


def test_up_twice_is_one_stack_and_a_dead_part_is_seen(config: EmbeddedConfig) -> None:
    first = stack.up(config)
    assert stack.up(config) == first
    triton = next(r for r in stack.status(config).running if r.name == "triton")
    processes.stop(triton, Path(config.data_dir))
    assert stack.status(config).ended == ("triton",)


def test_up_names_settings_that_a_running_stack_ignores(config: EmbeddedConfig) -> None:
    stack.up(config)
    said: list[str] = []
    stack.up(replace(config, store="cluster"), http_port=18_000, note=said.append)
    stack.up(config, note=said.append)
    assert [each.partition(" changes nothing")[0] for each in said] == [
        "triton.http_port = 18000",
        "embedded.store = cluster",
    ]
    assert all("`srp4ctr stack down`, then `up`" in each for each in said)


def test_a_tied_stack_does_not_take_over_a_running_one(config: EmbeddedConfig) -> None:
    stack.up(config)
    with pytest.raises(ValueError, match=r"runs in .* already"):
        stack.up(config, tied=True)


def ports_of(addresses: Addresses) -> list[int]:
    """Return every port of a stack."""
    names = (field.name for field in fields(Addresses) if field.name.endswith("_port"))
    return [port for name in names if (port := getattr(addresses, name))]


def test_two_stacks_at_once_do_not_collide(config: EmbeddedConfig, tmp_path: Path) -> None:
    config = replace(config, ports="well-known")  # both want the same ones
    other = replace(config, data_dir=str(tmp_path / "other"))
    try:
        here, there = stack.up(config, tied=True), stack.up(other, tied=True)
        assert not set(ports_of(here)) & set(ports_of(there))
        stack.down(other)
        assert stack.status(config).ended == ()
        assert not ports.is_open(there.kafka_port)
        assert ports.is_open(here.kafka_port)
    finally:
        stack.down(other)
