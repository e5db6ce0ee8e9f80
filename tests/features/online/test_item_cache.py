"""Serving's side of the table: one refresher per host, whatever ends or is down."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_map
from srp4ctr.features.online.item_cache import ItemTable, open_table
from srp4ctr.features.online.item_map import IS_DOWN, ItemMemory
from srp4ctr.features.online.item_refresher import Refresher
from srp4ctr.features.online.store import FeatureStoreSink, OnlineViews
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.state.reducers import Rows
from tests.features.readers import an_activity

pytestmark = pytest.mark.redis
WORDS = vocabulary.build({1: 1}, [{"genre": "War"}] * 5)


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[tuple[FeatureConfig, processes.Running]]:
    """Yield a store that a test may stop, empty or hide from."""
    with ports.reserved_ports(1) as (port,):
        running = broker.start_store(tmp_path, port, tied=True)
    config = FeatureConfig(redis=f"{ports.HOST}:{port}", item_refresh_s=0.1)
    yield config, running
    processes.stop(running, tmp_path)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_store_that_is_down_leaves_what_was_read(
    own_store: tuple[FeatureConfig, processes.Running], tmp_path: Path
) -> None:
    config, running = own_store
    FeatureStoreSink(config).write(Rows(shares={(5, 0): an_activity(2)}))
    memory = ItemMemory()
    refresher, table = Refresher(OnlineViews(config), memory), ItemTable(memory, WORDS)
    refresher.fill()
    before = table.lookup(np.array([5]))
    processes.stop(running, tmp_path)
    with pytest.raises(OutageError):
        refresher.turn(0.0)
    found = table.lookup(np.array([5]))
    assert found.version == before.version
    assert found.activity.impressions[0, 3].round() == 2.0


def test_bundles_share_one_refresher_and_a_killed_one_is_replaced(
    own_store: tuple[FeatureConfig, processes.Running],
) -> None:
    config, _ = own_store
    sink = FeatureStoreSink(config)
    sink.write(Rows(shares={(5, 0): an_activity(2)}))
    folder = item_map.folder_of(config)
    first = open_table(config, WORDS)
    others = [open_table(config, vocabulary.build({}, [])) for _ in range(2)]
    try:
        (pid,) = refreshers(folder)
        for table in (first, *others):
            assert table.lookup(np.array([5])).activity.impressions[0, 3].round() == 2.0
        first.stop()  # the refresher lives on: others need it
        time.sleep(1.0)
        assert refreshers(folder) == [pid]
        os.kill(pid, signal.SIGKILL)
        until(lambda: bool(set(refreshers(folder)) - {pid}))
        sink.write(Rows(shares={(6, 0): an_activity(3)}))
        seen = others[0]
        until(lambda: seen.lookup(np.array([6])).activity.first_seen_ms[0] > 0)
        assert seen.lookup(np.array([5])).activity.impressions[0, 3].round() == 2.0
        assert len(refreshers(folder)) == 1
    finally:
        for table in (first, *others):
            table.stop()
    until(lambda: not refreshers(folder))
    assert not list(folder.glob("items-*"))


def test_a_step_opens_while_the_store_is_down_and_is_filled_later(
    own_store: tuple[FeatureConfig, processes.Running], tmp_path: Path
) -> None:
    config, running = own_store
    FeatureStoreSink(config).write(Rows(shares={(5, 0): an_activity(2)}))
    port = int(config.redis.rpartition(":")[2])
    processes.stop(running, tmp_path)
    table = open_table(config, WORDS)
    try:
        assert ItemMemory(item_map.folder_of(config)).head[IS_DOWN] == 1
        assert table.lookup(np.array([5])).version == 0
        again = broker.start_store(tmp_path, port, tied=True)
        until(lambda: table.lookup(np.array([5])).version > 0)
        assert table.lookup(np.array([5])).activity.impressions[0, 3].round() == 2.0
    finally:
        table.stop()
        processes.stop(again, tmp_path)


def refreshers(folder: Path) -> list[int]:
    """Return the processes that refresh the table in ``folder``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
            is_dead = processes.stat_fields(int(file.parent.name))[0] in processes.DEAD
        except OSError:
            continue
        if str(folder).encode() in words and not is_dead:
            found.append(int(file.parent.name))
    return found
