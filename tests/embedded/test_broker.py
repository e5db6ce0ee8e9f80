"""The workarounds of the embedded broker, which no other broker gets."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher

from srp4ctr import processes
from srp4ctr.embedded import broker, ports


def test_another_broker_gets_no_guard(tmp_path: Path) -> None:
    before = Fetcher._proc_fetch_request
    assert not broker.prepare_worker(tmp_path, "127.0.0.1:1", ["g"])
    assert Fetcher._proc_fetch_request is before


@pytest.mark.parametrize(("brought", "pauses"), [(True, 0), (False, 1)])
def test_only_an_empty_fetch_pauses(
    monkeypatch: pytest.MonkeyPatch, brought: bool, pauses: int
) -> None:
    async def fetch(self: Any, *arguments: Any) -> bool:
        return brought

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(Fetcher, "_proc_fetch_request", fetch)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    broker.pause_after_empty_fetch()
    broker.pause_after_empty_fetch()  # a second call changes nothing
    patched = Fetcher._proc_fetch_request
    assert asyncio.run(patched(None, "assignment", 1, "request")) is brought
    assert len(slept) == pauses


@pytest.mark.kafka
def test_a_dead_workers_membership_is_evicted(tmp_path: Path) -> None:
    with ports.reserved_ports(1) as (kafka,):
        store = broker.start_broker(tmp_path, kafka, tied=True)
    bootstrap = f"{ports.HOST}:{kafka}"
    dead = processes.start(
        processes.python("dead", "-c", _CONSUMER.format(bootstrap=bootstrap)),
        tmp_path,
        tied=True,
    )
    try:
        log = Path(dead.log)
        processes.wait_ready(dead, lambda: "joined" in log.read_text())
        processes.stop(dead, tmp_path, grace_s=0.0)  # killed: it does not leave the group
        assert broker.evict_members(bootstrap, ["g"]) == 1
        assert broker.evict_members(bootstrap, ["g"]) == 0
    finally:
        processes.stop(store, tmp_path)


_CONSUMER = """
import asyncio, signal
from aiokafka import AIOKafkaConsumer
signal.signal(signal.SIGTERM, signal.SIG_IGN)

async def join():
    consumer = AIOKafkaConsumer("t", bootstrap_servers={bootstrap!r}, group_id="g")
    await consumer.start()
    while not consumer.assignment():
        await consumer.getmany(timeout_ms=100)
    print("joined", flush=True)
    await asyncio.sleep(60)

asyncio.run(join())
"""
