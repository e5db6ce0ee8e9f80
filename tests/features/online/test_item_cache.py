import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from srp4ctr.features.online import item_cache
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.state.counters import Activity
from tests.features.readers import MemoryReader

LOOKED_UP_MEANWHILE = """
import threading
import numpy as np
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.online.item_cache import ItemTable
from tests.features.readers import MemoryReader

keys = np.arange(1, 100_001)
known = vocabulary.build(dict.fromkeys(keys.tolist(), 1), [{}], num_oov_rows=2)
table = ItemTable(MemoryReader(), known)
is_over = threading.Event()

def look_up():
    chance = np.random.default_rng(0)
    while not is_over.is_set():
        table.lookup(chance.choice(keys, 2_000))

thread = threading.Thread(target=look_up)
thread.start()
for _ in range(60):
    table.refresh(max_items=1)
is_over.set()
thread.join()
"""
KEYS = np.array([-30, -2, 5, 9, 11], dtype=np.int64)


def a_vocabulary() -> Vocabulary:
    profiles = [{"genre": "War"}] * 5
    return vocabulary.build(dict.fromkeys(KEYS.tolist(), 1), profiles, num_oov_rows=2)


def a_table(reader: MemoryReader) -> ItemTable:
    table = ItemTable(reader, a_vocabulary())
    table.refresh()
    return table


def test_an_item_has_its_attributes_and_counters_after_a_refresh() -> None:
    reader = MemoryReader(attributes={5: {"genre": "War"}}, impressions={-30: 4.0})
    rows = a_table(reader).lookup(np.array([[5, -30], [0, 77]]))
    assert rows.attribute_rows[..., 0].tolist() == [[2, 0], [0, 0]]
    assert rows.activity.impressions[..., 0].tolist() == [[0.0, 4.0], [0.0, 0.0]]


def test_a_table_that_was_never_refreshed_is_empty() -> None:
    rows = ItemTable(MemoryReader(), a_vocabulary()).lookup(KEYS)
    assert not rows.attribute_rows.any()
    assert rows.version == 0


def test_an_item_outside_the_vocabulary_is_read_after_it_was_requested() -> None:
    reader = MemoryReader(impressions={77: 3.0, 2**63 - 1: 8.0})
    table = a_table(reader)
    wanted = np.array([77, 2**63 - 1], dtype=np.int64)
    assert table.lookup(wanted).activity.impressions[:, 0].tolist() == [0.0, 0.0]
    table.refresh(max_items=0)
    assert table.lookup(wanted).activity.impressions[:, 0].tolist() == [3.0, 8.0]


def test_a_new_item_leaves_the_others_as_they_were() -> None:
    reader = MemoryReader(impressions=dict.fromkeys(KEYS.tolist(), 2.0))
    table = a_table(reader)
    table.lookup(np.array([-500, 7]))
    table.refresh(max_items=0)
    assert table.lookup(KEYS).activity.impressions[:, 0].tolist() == [2.0] * 5


def test_a_limited_refresh_reads_every_item_in_turn() -> None:
    reader = MemoryReader()
    table = a_table(reader)
    reader.item_reads.clear()
    assert [table.refresh(max_items=2) for _ in range(5)] == [2] * 5
    assert sorted(reader.item_reads) == sorted([*KEYS.tolist()] * 2)


def test_a_limited_refresh_reads_requested_items_first_and_others_too() -> None:
    reader = MemoryReader()
    table = a_table(reader)
    reader.item_reads.clear()
    for _ in range(5):
        table.lookup(np.array([11]))
        table.refresh(max_items=2)
    assert reader.item_reads.count(11) >= 5
    assert set(reader.item_reads) == set(KEYS.tolist())


def test_a_refresh_sees_what_changed() -> None:
    reader = MemoryReader(impressions={5: 1.0})
    table = a_table(reader)
    reader.impressions[5] = 2.0
    before, now_ms = table.lookup(np.array([5])).version, time.time_ns() // 1_000_000
    table.refresh()
    rows = table.lookup(np.array([5]))
    assert rows.activity.impressions[0, 0] == 2.0
    assert rows.version > before
    assert rows.version >= now_ms


def test_padding_is_never_read() -> None:
    reader = MemoryReader()
    table = a_table(reader)
    table.lookup(np.zeros((2, 3), dtype=np.int64))
    reader.item_reads.clear()
    table.refresh()
    assert 0 not in reader.item_reads


def test_a_store_that_is_down_leaves_what_was_read() -> None:
    reader = MemoryReader(impressions={5: 1.0})
    table = a_table(reader)
    reader.down = True
    with pytest.raises(ConnectionError):
        table.refresh()
    assert table.lookup(np.array([5])).activity.impressions[0, 0] == 1.0


def test_invented_items_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_cache, "MAX_UNKNOWN_KEYS", 3)
    reader = MemoryReader()
    table = a_table(reader)
    for first in (100, 200, 300):
        table.lookup(np.arange(first, first + 50))
        table.refresh(max_items=0)
    assert len(set(reader.item_reads) - set(KEYS.tolist())) == 3


def test_an_idle_table_refreshes_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_cache, "IDLE_AFTER_S", 0.0)
    monkeypatch.setattr(item_cache, "IDLE_INTERVALS", 1e9)
    reader = MemoryReader()
    table = a_table(reader)
    reader.item_reads.clear()
    thread = table.keep_fresh(0.01)
    time.sleep(0.2)
    assert not reader.item_reads
    table.lookup(np.array([5]))
    deadline = time.monotonic() + 10.0
    while 5 not in reader.item_reads:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    table.stop()
    thread.join()


def test_stopping_waits_for_the_read_in_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that exits while a daemon thread is in a library's C++ may abort."""
    reader = MemoryReader()
    table = a_table(reader)
    began, read = threading.Event(), reader.read_items

    def slowly(item_keys: Sequence[int]) -> list[tuple[str, Activity]]:
        began.set()
        time.sleep(0.3)
        return read(item_keys)

    monkeypatch.setattr(reader, "read_items", slowly)
    table.lookup(np.array([5]))
    thread = table.keep_fresh(0.01)
    assert began.wait(10.0)
    table.stop()
    assert not thread.is_alive()


def test_lookups_while_a_refresh_chooses_its_items_are_safe() -> None:
    """A thread of numpy's wrote beyond an array's end, and the process crashed."""
    done = subprocess.run(
        [sys.executable, "-c", LOOKED_UP_MEANWHILE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_an_empty_vocabulary_has_a_table_too() -> None:
    table = ItemTable(MemoryReader(), vocabulary.build({}, []))
    assert table.refresh() == 0
    assert table.lookup(np.array([4])).attribute_rows.shape == (1, 1)
