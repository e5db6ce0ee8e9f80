"""The mapped table: what is put is found, and no reader sees half a row."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.features.online import item_map
from srp4ctr.features.online.item_map import FullError, ItemMap, ItemMemory
from srp4ctr.features.tensors.arrays import COLUMNS

ITEMS = 64


def filled(values: list[int]) -> np.ndarray:
    """Return rows whose columns are all the same."""
    return np.repeat(np.array(values, dtype=np.int64)[:, None], COLUMNS, axis=1)


@given(
    st.lists(
        st.integers(-(2**63), 2**63 - 1).filter(bool), unique=True, min_size=1, max_size=200
    )
)
def test_every_item_is_found_and_no_other(keys: list[int]) -> None:
    made = ItemMemory().create(4 * len(keys), 0)
    here, absent = np.array(keys[::2]), np.array([0, *keys[1::2]])
    rows = made.insert(here)
    made.put(rows, filled(list(range(len(rows)))))
    assert made.find(here).tolist() == rows.tolist() == list(range(1, len(rows) + 1))
    assert made.read(made.find(here))[:, 5].tolist() == list(range(len(rows)))
    assert not made.find(absent).any()
    assert not made.read(made.find(absent)).any()


def test_a_table_is_full_before_its_rows_are_written_over() -> None:
    made = ItemMemory().create(16, 20)
    with pytest.raises(FullError):
        made.insert(np.arange(1, 18))
    assert made.add_text("") == 0
    number = made.add_text("Ålien")
    assert made.text(number) == "Ålien"
    assert made.text(0) == ""
    with pytest.raises(FullError):
        made.add_text("x" * 20)


def test_a_reader_follows_the_writer_to_greater_tables(tmp_path: Path) -> None:
    writer, reader = ItemMemory(tmp_path), ItemMemory(tmp_path)
    assert reader.current() is None
    first = writer.create(16, 0)
    assert reader.current() is None  # not published
    writer.publish(first)
    first.put(first.insert(np.array([7])), filled([3]))
    seen = reader.current()
    assert seen is not None
    assert seen.read(seen.find(np.array([7])))[0, 0] == 3
    writer.publish(writer.create(64, 0))
    greater = reader.current()
    assert greater is not None
    assert greater.capacity == 64
    assert seen.read(seen.find(np.array([7])))[0, 0] == 3  # for a reader that still has it
    assert len(list(tmp_path.glob("items-*"))) == 1
    writer.clear()
    assert not list(tmp_path.glob("items-*"))


def hammer(folder: Path) -> None:
    """Write all rows, again and again, each time with one more in every column."""
    memory = ItemMemory(folder)
    made = memory.create(2 * ITEMS, 0)
    rows = made.insert(np.arange(1, ITEMS + 1))
    memory.publish(made)
    value = 0
    while True:
        value += 1
        made.put(rows, filled([value] * ITEMS))


def test_no_reader_sees_half_a_row_and_a_killed_writer_leaves_all_readable(
    tmp_path: Path,
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hammer, args=(tmp_path,))
    process.start()
    try:
        items = mapped(ItemMemory(tmp_path))
        rows = items.find(np.arange(1, ITEMS + 1))
        changes, before = 0, np.zeros(ITEMS, dtype=np.int64)
        deadline = time.monotonic() + 120.0
        while changes < 2000:
            assert time.monotonic() < deadline
            found = items.read(rows)
            assert (found == found[:, :1]).all()
            assert (found[:, 0] >= before).all()
            changes += int((found[:, 0] != before).any())
            before = found[:, 0]
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    found = items.read(rows)
    assert (found == found[:, :1]).all()


def mapped(memory: ItemMemory) -> ItemMap:
    """Return the table once another process has published it."""
    deadline = time.monotonic() + 60.0
    while (items := memory.current()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return items


def test_memory_is_reserved_before_a_reader_can_meet_a_hole(tmp_path: Path) -> None:
    """A hole that shared memory has no room for would end the process that reads it."""
    memory = ItemMemory(tmp_path)
    made = memory.create(1 << 16, 1 << 24)
    made.insert(np.arange(1, 60_001))
    made.add_text("x" * 3_000_000)
    (file,) = tmp_path.glob("items-*")
    rows = 60_000 * (2 * COLUMNS * 8 + 8 + 2 * 12)
    assert file.stat().st_blocks * 512 > rows + 3_000_000
    assert item_map.length_of(made.add_text("abc")) == 3
