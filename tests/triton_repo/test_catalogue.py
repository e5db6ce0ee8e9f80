"""What is popular and new now, by when items were clicked and first seen."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from srp4ctr.features.candidates import NEW_MS
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.triton_repo.serving import catalogue
from srp4ctr.triton_repo.serving.catalogue import Catalogue, ItemVectors, have
from tests.features.readers import MemoryReader, table_of
from tests.triton_repo.bundles import write_retrieval

NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000
KNOWN = [f"item-{number}" for number in range(6)]
NEW = ("week", "today", "first", "second")
GENRES = [{"genre": genre} for genre in ("drama", "war") for _ in range(5)]


def profiles(keys: Sequence[int]) -> Mapping[int, ItemProfile]:
    names = {item_key(name): name for name in NEW}
    return {
        key: ItemProfile(item_key=key, item_id=names[key], attributes={}, updated_at_ms=1)
        for key in keys
    }


def a_catalogue(folder: Path, reader: MemoryReader) -> Catalogue:
    words = vocabulary.build({item_key(name): 9 for name in KNOWN}, GENRES)
    write_retrieval(folder, words, KNOWN)
    items = ItemVectors(folder, words.item_keys)
    return Catalogue(items, words, table_of(reader, words), profiles)


def test_clicks_of_days_ago_make_an_item_less_popular_than_those_of_now(
    tmp_path: Path,
) -> None:
    old, fresh = item_key("item-1"), item_key("item-2")
    reader = MemoryReader(
        impressions={old: 99.0, fresh: 99.0},
        clicks={old: 9.0, fresh: 2.0},
        times_ms={old: NOW_MS - 72 * HOUR_MS, fresh: NOW_MS},  # three half-lives
    )
    offer = a_catalogue(tmp_path, reader).offer
    assert offer.popular.ids[:2] == (b"item-2", b"item-1")


def test_new_is_what_was_first_seen_this_week_and_before_all_what_was_never_shown(
    tmp_path: Path,
) -> None:
    week, today = item_key("week"), item_key("today")
    reader = MemoryReader(
        impressions={week: 1.0, today: 1.0},
        times_ms={week: NOW_MS - NEW_MS - 1, today: NOW_MS - HOUR_MS},
        attributes={item_key(name): {"genre": "war"} for name in ("first", "second")},
    )
    items = a_catalogue(tmp_path, reader)
    unseen = {item_key(name): name.encode() for name in ("first", "second")}
    came = [unseen[key] for key in items._table.keys().tolist() if key in unseen]
    assert items.offer.new.ids == (*came[::-1], b"today")  # the last that came first


def test_an_item_has_one_of_the_values_of_each_attribute_and_padding_is_none() -> None:
    rows = np.array([[2, 5, 0], [3, 0, 0], [0, 5, 0], [2, 0, 6], [2, 0, 0]])
    genre, towns = (slice(0, 1), np.array([2, 0, 0])), (slice(1, 3), np.array([0, 5, 6]))
    assert have(rows, [genre]).tolist() == [True, False, False, True, True]
    assert have(rows, [genre, towns]).tolist() == [True, False, False, True, False]


def test_only_so_many_filters_are_remembered(tmp_path: Path) -> None:
    reader = MemoryReader(attributes={item_key("item-3"): {"genre": "war"}})
    items = a_catalogue(tmp_path, reader)
    for times in range(1, 100):
        rows = items.rows(items.offer, (("genre", ("war",) * times),))
        assert rows is not None
        assert len(rows) == 1
    assert len(items.offer.matching) <= catalogue._FILTERS
