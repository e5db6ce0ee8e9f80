"""What is popular now, as soon as a row changes; what is new; what has which attributes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.features.candidates import NEW_MS, Shares, blended
from srp4ctr.features.online import item_feed, row_codec
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.item_map import UP_TO_DATE_MS, ItemMemory
from srp4ctr.features.online.item_writer import ItemWriter
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.events.schema import TOTAL_KEY, item_key
from srp4ctr.streams.state.counters import Activity, Occurrence, count_all
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.triton_repo.serving import catalogue
from srp4ctr.triton_repo.serving.catalogue import Catalogue, have
from srp4ctr.triton_repo.serving.item_vectors import ItemVectors
from tests.features.readers import MemoryReader, table_of
from tests.triton_repo.bundles import write_retrieval

HOUR_MS = 3_600_000
NOW_MS = time.time_ns() // 1_000_000
KNOWN = [f"item-{number}" for number in range(6)]
NEW = ("week", "today", "first", "second")
GENRES = [{"genre": genre} for genre in ("drama", "war") for _ in range(5)]
NAMES = [f"item-{number}" for number in range(1000)]
KEYS = {name: item_key(name) for name in [*NAMES, "fresh"]}
WORDS = vocabulary.build(dict.fromkeys([KEYS[name] for name in NAMES], 9), [])


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Shop:
    """A table of items, which tests write, and a catalogue that looks at it."""

    folder: Path
    memory: ItemMemory = field(default_factory=ItemMemory)
    offsets: int = 0
    requested: list[int] = field(default_factory=list)
    rows: dict[int, Activity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write_retrieval(self.folder, WORDS, NAMES)
        self.writer = ItemWriter(self.memory, 2048)
        self.writer.publish()
        self.memory.head[UP_TO_DATE_MS] = 1

    def click(self, key: int, times_ms: Sequence[int]) -> None:
        """Write the row of an item that was clicked at ``times_ms``."""
        clicks: list[Occurrence] = []
        for at_ms in times_ms:
            clicks.append((at_ms, True, self.offsets))
            self.offsets += 1
        row = self.rows[key] = count_all(self.rows.get(key, Activity()), clicks)
        stored = row_codec.ITEM_ACTIVITY.stored((key, 0), row)
        self.writer.put(item_feed.stored_changes([stored]), now=1)

    def catalogue(self) -> Catalogue:
        table = ItemTable(self.memory, WORDS)
        items = ItemVectors(self.folder, WORDS.item_keys)
        return Catalogue(items, WORDS, table, self.profiles)

    def profiles(self, keys: Sequence[int]) -> Mapping[int, ItemProfile]:
        self.requested += keys
        names = {KEYS["fresh"]: "fresh"}
        return {
            key: ItemProfile(
                item_key=key, item_id=names[key], attributes={}, updated_at_ms=1
            )
            for key in keys
            if key in names
        }


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def looking(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalogue]:
    """A catalogue that looks at changes alone, once it has begun."""
    monkeypatch.setattr(catalogue, "_EVERY_S", 1e6)
    monkeypatch.setattr(catalogue, "_CHANGES_EVERY_S", 0.02)
    for number, name in enumerate(NAMES[:50]):
        shop.click(KEYS[name], [now_ms() - 5 * HOUR_MS] * (60 - number))
    found = shop.catalogue()
    found.start()
    yield found
    found.stop()


def until_first(looking: Catalogue, name: str) -> None:
    deadline = time.monotonic() + 60.0
    while looking.offer.popular.ids[0] != name.encode():
        assert time.monotonic() < deadline, looking.offer.popular.ids[:5]
        time.sleep(0.01)


def test_an_item_is_popular_as_soon_as_its_row_says_so(
    shop: Shop, looking: Catalogue
) -> None:
    assert looking.offer.popular.ids[:2] == (b"item-0", b"item-1")
    shop.click(KEYS["item-777"], [now_ms() - HOUR_MS] * 90)
    until_first(looking, "item-777")
    assert looking.offer.popular.ids[1:3] == (b"item-0", b"item-1")
    shop.click(KEYS["fresh"], [now_ms()] * 200)  # the bundle does not know it
    until_first(looking, "fresh")


def test_what_is_clicked_no_more_makes_room_at_once(shop: Shop, looking: Catalogue) -> None:
    shop.click(KEYS["item-900"], [now_ms()] * 300)
    until_first(looking, "item-900")
    shop.click(KEYS["item-901"], [now_ms()] * 301)
    until_first(looking, "item-901")
    assert looking.offer.popular.ids[1] == b"item-900"


def test_the_total_of_all_items_is_offered_as_no_item(
    shop: Shop, looking: Catalogue
) -> None:
    shop.click(TOTAL_KEY, [now_ms()] * 999)
    shop.click(KEYS["item-5"], [now_ms()] * 300)
    until_first(looking, "item-5")
    again = shop.catalogue().offer  # by a look at all items
    for offer in (looking.offer, again):
        for items in (offer.popular, offer.new, offer.usual):
            assert TOTAL_KEY not in items.keys
    assert TOTAL_KEY not in shop.requested


def test_most_of_what_was_clicked_most_in_two_hours_is_a_candidate(shop: Shop) -> None:
    """News that come and go, and some items that were clicked for days."""
    rng, now, hours = np.random.default_rng(3), now_ms(), 72
    began = rng.uniform(-24, hours, len(NAMES))
    lasting = np.arange(len(NAMES)) < 100
    strength = rng.pareto(1.1, len(NAMES)) + 0.1
    clicked = np.zeros((len(NAMES), hours), dtype=np.int64)
    for hour in range(hours):
        left = np.where(lasting, 0.05, 2.0 ** (-(hour - began) / 4.0) * (began <= hour))
        weights = strength * left
        clicked[:, hour] = rng.multinomial(2000, weights / weights.sum())
    for name, counts in zip(NAMES, clicked, strict=True):
        # In the middle of each hour.
        times = [
            [now - (2 * (hours - h) - 1) * HOUR_MS // 2] * n for h, n in enumerate(counts)
        ]
        if counts.any():
            shop.click(KEYS[name], [at_ms for time in times for at_ms in time])
    shares, offer = Shares(), shop.catalogue().offer
    of_model = rng.permutation([KEYS[name] for name in NAMES])[: shares.candidates]
    lists = [of_model, offer.popular.keys, offer.new.keys]
    places = blended(lists, shares.of(is_cold=False), shares.candidates)
    candidates = np.concatenate(lists)[places]
    most = np.argsort(-clicked[:, -2:].sum(axis=1), kind="stable")[:50]
    wanted = [KEYS[NAMES[place]] for place in most.tolist()]
    assert np.isin(wanted, candidates).sum() >= 47
    assert np.isin(wanted[:20], candidates).all()
    assert np.isin(candidates, of_model).sum() >= shares.candidates // 2


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


def test_a_limited_number_of_filters_is_cached(tmp_path: Path) -> None:
    reader = MemoryReader(attributes={item_key("item-3"): {"genre": "war"}})
    items = a_catalogue(tmp_path, reader)
    for times in range(1, 100):
        rows = items.rows(items.offer, (("genre", ("war",) * times),))
        assert rows is not None
        assert len(rows) == 1
    assert len(items.offer.matching) <= catalogue._FILTERS
