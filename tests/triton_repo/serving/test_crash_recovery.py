"""Callers are answered while a step's process is killed and replaced."""

import os
import signal
import time
from pathlib import Path

import pytest

from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles.crash_counts import read_crashes
from srp4ctr.ops.triton import crash_recovery
from srp4ctr.ops.triton.crash_recovery import Watch
from srp4ctr.triton_repo.model_names import CLICK_RANKER, step_name
from tests.triton_repo.bundles import KNOWN_ITEM, MakeBundle, promote
from tests.triton_repo.conftest import Server

pytestmark = [pytest.mark.stack, pytest.mark.triton]

STEP = step_name(CLICK_RANKER, "v1")


@pytest.fixture
def server_pid(server: Server, make_bundle: MakeBundle) -> int:
    source = make_bundle("v1", mark=1.0)
    promote(source, server.triton, server.features)
    assert server.running is not None
    return server.running.pid


def living(server_pid: int) -> set[int]:
    return {
        child.pid
        for child in crash_recovery.children(server_pid)
        if child.step == STEP and not child.is_dead
    }


def crashes(server: Server) -> int:
    """Return the crashes that the monitor counts, of the server of all these tests."""
    return read_crashes(Path(server.triton.repository)).get("v1", 0)


@pytest.mark.parametrize("killed", [1, 2], ids=["one of two", "both"])
def test_a_killed_process_is_replaced_and_callers_are_answered(
    server: Server, server_pid: int, killed: int
) -> None:
    watch, count = Watch(server_pid, server.triton), crashes(server)
    assert watch.poll() == []
    before = living(server_pid)
    assert len(before) == server.triton.instances
    for pid in sorted(before)[:killed]:
        os.kill(pid, signal.SIGKILL)
    with RankClient(server.triton.grpc) as client:
        while not (revived := watch.poll()):
            if killed == 1:  # the other one answers; a call to the dead one takes a second
                client.rank("u1", [KNOWN_ITEM], deadline_s=20.0)
            time.sleep(0.05)
        assert revived == [STEP]
        while living(server_pid) & before:  # killed, and about to end
            time.sleep(0.05)
        assert len(living(server_pid)) == server.triton.instances
        assert crashes(server) == count + killed
        for _ in range(20):
            assert client.rank("u1", [KNOWN_ITEM], deadline_s=20.0).model_version == "v1"
    assert watch.poll() == watch.poll() == []


def test_an_orderly_unload_is_no_death(
    server: Server, server_pid: int, make_bundle: MakeBundle
) -> None:
    watch, count = Watch(server_pid, server.triton), crashes(server)
    for version in ("v2", "v3"):  # then v1 is unloaded
        source = make_bundle(version, mark=1.0)
        promote(source, server.triton, server.features)
        assert watch.poll() == []
    until = time.monotonic() + 60.0
    while living(server_pid) and time.monotonic() < until:
        assert watch.poll() == []
        time.sleep(0.05)
    assert not living(server_pid)
    assert watch.poll() == []
    assert crashes(server) == count
