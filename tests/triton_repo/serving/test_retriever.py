"""Histories → candidates: what comes next, what is popular and new, what is left out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.errors import ArtifactError, MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.candidates import Shares, blended
from srp4ctr.features.online.request_features import RequestFeatures
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import AVAILABLE, NOT_AVAILABLE, item_key
from srp4ctr.streams.state.sequences import SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.triton_repo.serving import catalogue
from srp4ctr.triton_repo.serving.catalogue import Catalogue
from srp4ctr.triton_repo.serving.item_vectors import ItemVectors
from srp4ctr.triton_repo.serving.retriever import Filters, Retriever
from tests.features.readers import MemoryReader, table_of
from tests.triton_repo.bundles import write_retrieval
from tests.triton_repo.tiny_graphs import SIZES

NOW_MS = time.time_ns() // 1_000_000
NAMES = [f"item-{number}" for number in range(12)]
KEYS = {name: item_key(name) for name in [*NAMES, "fresh", "old", "nameless"]}
DRAMA = {"genre": "drama"}
GENRES = {name: {"genre": "drama" if i % 3 == 0 else "war"} for i, name in enumerate(NAMES)}


@dataclass
class World:
    """A store, and a bundle that expects what is next to the newest item."""

    folder: Path
    reader: MemoryReader = field(default_factory=MemoryReader)
    shares: Shares = field(
        default_factory=lambda: Shares(candidates=6, popular=0.0, new=0.0)
    )
    counted: list[str] = field(default_factory=list)

    @property
    def words(self) -> Vocabulary:
        profiles = [genre for genre in GENRES.values() for _ in range(2)]
        return vocabulary.build({KEYS[name]: 9 for name in NAMES}, profiles)

    def profiles(self, keys: Sequence[int]) -> Mapping[int, ItemProfile]:
        names = {key: name for name, key in KEYS.items() if name != "nameless"}
        return {
            key: ItemProfile(
                item_key=key, item_id=names[key], attributes={}, updated_at_ms=1
            )
            for key in keys
            if key in names
        }

    def features(self) -> RequestFeatures:
        words = self.words
        return RequestFeatures(
            self.reader, words, table_of(self.reader, words), sizes=SIZES, ttl_days=90
        )

    def catalogue(self, features: RequestFeatures) -> Catalogue:
        items = ItemVectors(self.folder, features.vocabulary.item_keys)
        return Catalogue(items, features.vocabulary, features.items, self.profiles)

    def retriever(self) -> Retriever:
        features = self.features()
        items = self.catalogue(features)
        return Retriever(self.folder, features, items, self.shares, self.counted.append)

    def find(
        self, user: str, filters: Filters | None = None, at_ms: int = NOW_MS
    ) -> dict[str, str]:
        """Return the candidates of ``user`` with their sources, in order."""
        return found(self.retriever(), user, filters, at_ms)


def found(
    retrieves: Retriever, user: str, filters: Filters | None = None, at_ms: int = NOW_MS
) -> dict[str, str]:
    made = retrieves.find([user], [at_ms], [filters or Filters()])
    pairs = zip(made.item_ids[0].tolist(), made.sources[0].tolist(), strict=True)
    return {item.decode(): source.decode() for item, source in pairs if item}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    write_retrieval(tmp_path, made.words, NAMES)
    bundle.write_card(tmp_path, BundleManifest(version="v1", created_at_ms=1, sizes=SIZES))
    newest = [(NOW_MS - 9000, KEYS["item-1"]), (NOW_MS - 8000, KEYS["item-6"])]
    made.reader.histories = {"ann": newest, "cold": []}
    made.reader.attributes = {KEYS[name]: each for name, each in GENRES.items()}
    made.reader.counted_at_ms = NOW_MS - 1000
    return made


def by_row(world: World, *left_out: str) -> list[str]:
    """Return the items by how far their rows are from that of ``item-6``."""
    rows = dict(zip(NAMES, world.words.item_rows([KEYS[n] for n in NAMES]), strict=True))
    names = [name for name in NAMES if name not in left_out]
    return sorted(names, key=lambda name: abs(rows[name] - rows["item-6"] - 0.1))


def test_the_model_s_candidates_are_the_nearest_without_the_user_s_own(
    world: World,
) -> None:
    expected = by_row(world, "item-6", "item-1")[:6]
    assert list(world.find("ann").items()) == [(name, "model") for name in expected]


def test_nothing_is_left_out_where_the_caller_says_so(world: World) -> None:
    assert list(world.find("ann", Filters(exclude="nothing"))) == by_row(world)[:6]


def test_what_was_shown_is_left_out_on_request(world: World) -> None:
    shown = by_row(world, "item-6", "item-1")[0]
    rows = world.reader.read_users(["ann"])["ann"]
    exposures = sequence_of(
        [SequenceElement(occurred_at=NOW_MS - 1, item_key=KEYS[shown], action=0)]
    )
    world.reader.exposures = {"ann": exposures}
    assert rows.sequence
    assert shown in world.find("ann")
    assert shown not in world.find("ann", Filters(exclude="shown"))


def test_only_items_with_the_attribute_are_candidates(world: World) -> None:
    world.shares = Shares(candidates=6, popular=0.4, new=0.0)
    world.reader.impressions = dict.fromkeys(KEYS.values(), 1.0)
    world.reader.clicks = {KEYS[name]: 5.0 for name in NAMES}
    drama = [name for name in by_row(world, "item-6", "item-1") if GENRES[name] == DRAMA]
    one = world.find("ann", Filters(where={"genre": "drama"}))
    assert sorted(one) == sorted(drama)
    both = world.find("ann", Filters(where={"genre": ["war", "drama"]}))
    assert len(both) == 6


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ({"colour": "red"}, "by: genre"),
        ({"genre": "dramma"}, "genre = 'dramma'"),
        ({"genre": []}, "'genre' has no value"),
    ],
)
def test_a_filter_that_no_item_can_pass_is_refused(
    world: World, where: dict[str, str | list[str]], why: str
) -> None:
    with pytest.raises(MistakeError, match=why):
        world.find("ann", Filters(where=where))


def test_an_item_that_is_not_available_is_no_candidate(world: World) -> None:
    first, second, *_ = by_row(world, "item-6", "item-1")
    world.shares = Shares(candidates=20, popular=0.4, new=0.1)
    world.reader.attributes[KEYS[first]] = {AVAILABLE: NOT_AVAILABLE}
    world.reader.attributes[KEYS["fresh"]] = {AVAILABLE: NOT_AVAILABLE}
    found = world.find("ann")
    assert first not in found
    assert "fresh" not in found
    assert second in found


def test_popular_and_new_items_have_their_shares_at_any_depth(world: World) -> None:
    world.shares = Shares(candidates=10, popular=0.2, new=0.1)
    world.reader.attributes[KEYS["fresh"]] = {"genre": "war"}
    clicked = ["item-9", "item-4", "item-2"]
    world.reader.impressions = {KEYS[name]: 9.0 for name in clicked}
    world.reader.clicks = {KEYS[n]: 9.0 - i for i, n in enumerate(clicked)}
    found = world.find("ann")
    assert [n for n, source in found.items() if source == "new"] == ["fresh"]
    popular = [n for n, source in found.items() if source == "popular"]
    expected = [n for n in clicked if found.get(n) != "model"]
    assert popular[: len(expected)] == expected[: len(popular)]
    assert {"model", "new"} <= set(found.values())


def test_what_the_user_has_clicked_does_not_shorten_what_is_popular(world: World) -> None:
    world.shares = Shares(candidates=3, popular=1.0, new=0.0)
    order = ["item-1", "item-6", "item-9", "item-4", "item-2", "item-3"]
    world.reader.impressions = {KEYS[name]: 9.0 for name in order}
    world.reader.clicks = {KEYS[name]: 9.0 - i for i, name in enumerate(order)}
    assert list(world.find("ann").items()) == [(name, "popular") for name in order[2:5]]


def test_a_new_item_with_an_unknown_id_is_no_candidate(world: World) -> None:
    world.shares = Shares(candidates=20, popular=0.3, new=0.3)
    world.reader.impressions = {KEYS["nameless"]: 9.0, KEYS["fresh"]: 1.0}
    world.reader.clicks = {KEYS["nameless"]: 9.0}
    assert "fresh" in world.find("ann")  # it has a profile
    assert len(world.find("ann")) == len(NAMES) - 2 + 1


@pytest.mark.parametrize("user", ["cold", "nobody"])
def test_a_user_without_a_history_gets_what_is_popular(world: World, user: str) -> None:
    world.reader.impressions = {KEYS["item-3"]: 9.0, KEYS["item-8"]: 9.0}
    world.reader.clicks = {KEYS["item-3"]: 4.0, KEYS["item-8"]: 5.0}
    found = world.find(user)
    assert list(found)[:2] == ["item-8", "item-3"]
    assert set(found.values()) == {"popular"}


def test_an_empty_store_answers_with_what_was_popular_in_training(world: World) -> None:
    world.reader = MemoryReader(down=True)
    found = world.find("ann")
    rows = world.words.item_rows([KEYS[name] for name in NAMES])  # counts rise with rows
    expected = [NAMES[i] for i in np.argsort(-rows)][:6]
    assert found == dict.fromkeys(expected, "popular")


def test_a_look_in_parts_finds_what_a_look_at_once_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reader.impressions = dict.fromkeys(KEYS.values(), 9.0)
    world.reader.clicks = {KEYS[name]: 1.0 + i for i, name in enumerate(NAMES)}
    world.reader.attributes[KEYS["item-5"]] = {AVAILABLE: NOT_AVAILABLE}
    looks = world.catalogue(world.features())
    at_once = looks.offer
    monkeypatch.setattr(catalogue, "_ITEMS_AT_ONCE", 4)
    monkeypatch.setattr(catalogue, "_EVERY_S", 0.0)
    looks.start()
    ends_s = time.monotonic() + 60
    while (in_parts := looks.offer) is at_once and time.monotonic() < ends_s:
        time.sleep(0.01)
    looks.stop()
    assert in_parts is not at_once
    assert in_parts.popular.ids == at_once.popular.ids
    assert in_parts.popular.ids[:2] == (b"item-11", b"item-10")
    assert in_parts.new.ids == at_once.new.ids != ()
    np.testing.assert_array_equal(in_parts.unavailable, at_once.unavailable)
    np.testing.assert_array_equal(in_parts.attribute_rows, at_once.attribute_rows)


def test_next_items_are_counted_by_their_place(world: World) -> None:
    world.shares = Shares(candidates=6, popular=0.0, new=0.0)
    retrieves = world.retriever()
    offered = list(found(retrieves, "ann"))
    found(retrieves, "ann", at_ms=NOW_MS + 1)
    assert world.counted == []  # nothing followed
    history = world.reader.histories["ann"]
    history += [(NOW_MS + 2, KEYS["item-1"]), (NOW_MS + 3, KEYS[offered[2]])]
    found(retrieves, "ann", at_ms=NOW_MS + 4)
    assert world.counted == ["1-20"]  # the first item that was new to the user
    rest = next(n for n in NAMES if n not in (*offered, "item-1", "item-6"))
    again = list(found(retrieves, "ann", at_ms=NOW_MS + 5))
    missed = next(n for n in NAMES if n not in (*again, *offered, "item-1", "item-6", rest))
    history.append((NOW_MS + 6, KEYS[missed]))
    found(retrieves, "ann", at_ms=NOW_MS + 7)
    assert world.counted == ["1-20", "none"]


def test_a_blend_has_distinct_items_and_outlasts_a_source_that_ends() -> None:
    sources = [np.array(keys, dtype=np.int64) for keys in ([1, 2, 3, 4, 5, 6], [2, 9], [])]
    places = blended(sources, (0.5, 0.5, 0.0), 6)
    assert np.concatenate(sources)[places].tolist() == [1, 2, 9, 3, 4, 5]
    assert not len(blended([sources[2]] * 3, (0.5, 0.4, 0.1), 6))
    assert blended(sources, (0.0, 1.0, 0.0), 6).tolist() == [6, 7]


def test_files_of_other_items_are_refused(world: World) -> None:
    with pytest.raises(ArtifactError, match="other items than the vocabulary"):
        ItemVectors(world.folder, np.arange(5))
    with pytest.raises(ArtifactError, match="holds no items"):
        ItemVectors(world.folder / "nowhere", np.arange(5))


@pytest.mark.parametrize("text", ["{", '{"where": 3}', '{"exclude": "all"}', '{"x": 1}'])
def test_filters_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(MistakeError, match="filters"):
        Filters.parse(text)
