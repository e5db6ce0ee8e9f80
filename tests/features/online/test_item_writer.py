"""Rows of items → the table: sums as ``counters.total`` makes them, and room for more."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from srp4ctr.features.online import item_feed, row_codec
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.item_map import ItemMemory
from srp4ctr.features.online.item_writer import ItemWriter
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.events.schema import TOTAL_KEY
from srp4ctr.streams.events.vectors import vector_text
from srp4ctr.streams.state.counters import Activity, count, total
from tests.features.readers import MemoryReader, an_activity, table_of

AT_MS = 1_700_000_000_123
WORDS = vocabulary.build({1: 1}, [{"genre": "War"}] * 5)
WAR = WORDS.attribute_rows({"genre": "War"}).tolist()

SHARES = st.lists(
    st.tuples(
        st.integers(1, 4),  # item
        st.integers(0, 5),  # partition
        st.lists(st.tuples(st.integers(0, 40 * 86_400_000), st.booleans()), max_size=8),
    ),
    max_size=20,
)


@given(SHARES, st.randoms())
def test_the_table_has_the_counters_that_total_adds_up(given: Any, chance: Any) -> None:
    shares: dict[tuple[int, int], Activity] = {}
    written = []
    for item, partition, events in given:
        row = shares.get((item, partition), Activity())
        for at_ms, is_click in events:
            offset = row.last_offset + 1
            row = count(row, at_ms=AT_MS + at_ms, is_click=is_click, offset=offset)
        shares[item, partition] = row
        written.append(row_codec.ITEM_ACTIVITY.stored((item, partition), row))
    chance.shuffle(written)
    memory = ItemMemory()
    writer = ItemWriter(memory, 16)
    writer.publish()
    for start in range(0, len(written), 3):
        writer.put(item_feed.stored_changes(written[start : start + 3]), now=start)
    keys = [1, 2, 3, 4]
    found = ItemTable(memory, WORDS).lookup(np.array(keys)).activity
    for place, key in enumerate(keys):
        wanted = total([row for (item, _), row in sorted(shares.items()) if item == key])
        assert found.impressions[place] == pytest.approx(wanted.impressions, abs=1e-9)
        assert found.clicks[place] == pytest.approx(wanted.clicks, abs=1e-9)
        assert found.counted_at_ms[place] == wanted.counted_at_ms
        assert found.first_seen_ms[place] == wanted.first_seen_ms


@pytest.mark.parametrize(
    "hostile",
    [
        {"counted_at_ms": -(2**63)},
        {"first_seen_ms": 2**63 - 1},
        {"clicks": (1.0, math.nan, 1.0, 1.0)},
        {"impressions": (math.inf,) * 4},
    ],
)
def test_a_share_of_no_time_and_no_count_that_can_be_is_not_read(hostile: Any) -> None:
    good = count(Activity(), at_ms=AT_MS, is_click=False, offset=0)
    rows = [
        row_codec.ITEM_ACTIVITY.stored((1, partition), activity)
        for partition, activity in enumerate([good, replace(good, **hostile)])
    ]
    (share,) = item_feed.stored_changes(rows).shares
    assert share["partition"] == 0


def test_changes_are_the_items_written_since_the_last_look() -> None:
    memory = ItemMemory()
    writer = ItemWriter(memory, 16)
    writer.publish()

    def write(*keys: int, impressions: int) -> None:
        rows = {(key, 0): an_activity(impressions) for key in keys}
        stored = [row_codec.ITEM_ACTIVITY.stored(key, row) for key, row in rows.items()]
        writer.put(item_feed.stored_changes(stored), now=1)

    write(5, 6, TOTAL_KEY, impressions=1)
    changes = ItemTable(memory, WORDS).changes()
    assert changes.take().tolist() == []  # all of them are known by a look at all
    write(6, TOTAL_KEY, impressions=2)
    assert changes.take().tolist() == [6]
    assert changes.take().tolist() == []
    write(7, 5, impressions=3)
    write(5, impressions=4)
    assert sorted(changes.take().tolist()) == [5, 7]
    write(*range(100, 120), impressions=1)  # a greater table
    assert changes.take().tolist() == []
    write(119, impressions=2)
    assert changes.take().tolist() == [119]


def test_new_items_and_texts_need_greater_tables_and_leave_the_others() -> None:
    memory = ItemMemory()
    writer, view = ItemWriter(memory, 16), row_codec.ITEM_ACTIVITY
    writer.publish()
    table = ItemTable(memory, WORDS)
    for first in range(1, 1000, 100):
        keys = range(first, first + 100)
        rows = [view.stored((key, 0), an_activity(key % 7 + 1)) for key in keys]
        texts = [f'{{"genre": "War", "title": "{"x" * key}"}}' for key in keys]
        profiles = [
            item_feed.StoredProfile(item_key=key, version_us=1, text=text)
            for key, text in zip(keys, texts, strict=True)
        ]
        writer.put(item_feed.stored_changes(rows), now=1)
        writer.put(item_feed.Changes(profiles=profiles), now=1)
        found = table.lookup(np.arange(1, first + 100))
        wanted = [key % 7 + 1 for key in range(1, first + 100)]
        assert found.activity.impressions[:, 3].round().tolist() == wanted
        assert (found.attribute_rows == WAR).all()


@pytest.mark.parametrize(("version_us", "corrected"), [(1, False), (2, True), (3, True)])
def test_attributes_are_replaced_by_no_older_ones(version_us: int, corrected: bool) -> None:
    memory = ItemMemory()
    writer = ItemWriter(memory, 16)
    writer.publish()
    for version, genre in ((2, "unheard of"), (version_us, "War")):
        text = f'{{"genre": "{genre}"}}'
        profile = item_feed.StoredProfile(item_key=5, version_us=version, text=text)
        writer.put(item_feed.Changes(profiles=[profile]), now=1)
    found = ItemTable(memory, WORDS).lookup(np.array([5])).attribute_rows
    assert (found == WAR).all() == corrected


def test_items_keep_their_shape_and_padding_is_empty() -> None:
    reader = MemoryReader(attributes={5: {"genre": "War"}}, impressions={-30: 4.0})
    rows = table_of(reader, WORDS).lookup(np.array([[5, -30], [0, 77]]))
    assert rows.attribute_rows.tolist() == [[WAR, [0] * len(WAR)], [[0] * len(WAR)] * 2]
    assert rows.activity.impressions[..., 0].tolist() == [[0.0, 4.0], [0.0, 0.0]]
    assert rows.take(np.s_[:, :1]).activity.first_seen_ms.tolist() == [[0], [0]]


def test_a_table_that_was_never_filled_is_empty() -> None:
    rows = ItemTable(ItemMemory(), WORDS).lookup(np.array([[1, 2]]))
    assert not rows.attribute_rows.any()
    assert rows.activity.impressions.shape == (1, 2, 4)
    assert rows.version == 0
    empty = table_of(MemoryReader(), vocabulary.build({}, []))
    assert empty.lookup(np.array([4])).attribute_rows.shape == (1, 1)


def test_an_item_s_vector_has_the_rows_that_training_gave_it() -> None:
    looks = np.random.default_rng(2).normal(size=(40, 12))
    known = [{"look": vector_text(each.tolist())} for each in looks]
    words = vocabulary.build({1: 1}, known)
    table = table_of(MemoryReader(attributes={5: known[0], -7: known[1]}), words)
    found = table.lookup(np.array([5, -7])).attribute_rows
    assert np.array_equal(found, [words.attribute_rows(each) for each in known[:2]])
    assert found.all()
