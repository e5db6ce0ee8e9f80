import json
import random
import shutil
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.profiles import (
    item_profiles,
    item_updates,
    restore_profiles,
    user_profiles,
)
from srp4ctr.streams.events.schema import ItemUpdate, item_key
from srp4ctr.testing.raw_logs import Published, write_log
from tests.builders import NOON_MS, a_profile, an_item
from tests.streams.memory_sink import MemorySink

DAY_MS = 86_400_000


def profiles(folder: Path, as_of_ms: int, *updates: Published) -> dict[str, object]:
    """Return the attributes by item id."""
    from srp4ctr.features.online import feast_store

    log_dir = write_log(folder / "events", updates)
    config = FeatureConfig(registry=str(folder / "registry.db"), log_dir=str(log_dir))
    feast_store.apply(config)
    with opened(log_dir) as log:
        found = item_profiles(log, config, as_of_ms)
    names = {item_key(name): name for name in ("a", "b", "c")}
    return {names[key]: attributes for key, attributes in found.items()}


def test_the_latest_attributes_by_event_time_hold(tmp_path: Path) -> None:
    found = profiles(
        tmp_path,
        NOON_MS + 10,
        (an_item("a", colour="new", at_ms=NOON_MS + 5), NOON_MS + 5),
        (an_item("a", colour="old", at_ms=NOON_MS + 1), NOON_MS + 6),  # came after it
        (an_item("b", genre=["War", "Drama"], at_ms=NOON_MS - 9_000 * DAY_MS), NOON_MS),
    )
    assert found == {"a": {"colour": "new"}, "b": {"genre": ("War", "Drama")}}


def test_items_and_users_are_in_order(tmp_path: Path) -> None:
    """Codebooks are fitted to them: an engine's own order would make them another's."""
    from srp4ctr.features.online import feast_store

    names = [f"n{number:04}" for number in range(3000)]
    published: list[Published] = [(an_item(name, colour=name), NOON_MS) for name in names]
    published += [(a_profile(user_id=name, town=name), NOON_MS) for name in names]
    log_dir = write_log(tmp_path / "events", published)
    config = FeatureConfig(registry=str(tmp_path / "registry.db"), log_dir=str(log_dir))
    feast_store.apply(config)
    with opened(log_dir) as log:
        items = item_profiles(log, config, NOON_MS + 1)
        users = user_profiles(log, NOON_MS + 1)
    assert list(items) == sorted(map(item_key, names))
    assert [json.loads(user)["town"] for user in users] == names


def test_what_was_not_known_or_had_not_happened_yet_does_not_count(tmp_path: Path) -> None:
    found = profiles(
        tmp_path,
        NOON_MS,
        (an_item("a", colour="known", at_ms=NOON_MS - 5), NOON_MS - 5),
        (an_item("a", colour="future", at_ms=NOON_MS + 1), NOON_MS + 1),
        (an_item("a", colour="late", at_ms=NOON_MS - 1), NOON_MS + 1),
        (an_item("b", colour="future", at_ms=NOON_MS + 1), NOON_MS + 1),
    )
    assert found == {"a": {"colour": "known"}}


def test_items_updates_are_what_was_known_of_them_at_any_time(tmp_path: Path) -> None:
    """With late, equal and repeated updates; as a scan of all of them has it."""
    draw = random.Random(3)
    published: list[Published] = []
    for _ in range(300):
        at_ms = NOON_MS + draw.randrange(40)
        update = an_item(draw.choice("abc"), colour=draw.choice("xyz"), at_ms=at_ms)
        published.append((update, at_ms + draw.choice((-3, 0, 0, 5, 20))))
    with opened(write_log(tmp_path, published)) as log:
        rows = item_updates(log).to_pylist()

    def scanned(item: str, at_ms: int) -> str | None:
        known = [
            ((update.occurred_at, known_ms, offset), update.attributes["colour"])
            for offset, (update, known_ms) in enumerate(published)
            if isinstance(update, ItemUpdate) and update.item_id == item
            if max(update.occurred_at, known_ms) < at_ms
        ]
        return str(max(known)[1]) if known else None

    for item in "abc":
        mine = [row for row in rows if row["item_key"] == item_key(item)]
        for at_ms in range(NOON_MS, NOON_MS + 70):
            seen = [each["attributes"] for each in mine if each["visible_at"] < at_ms]
            colour = json.loads(seen[-1])["colour"] if seen else None
            assert colour == scanned(item, at_ms)
        texts = [each["attributes"] for each in mine]
        assert all(one != other for one, other in pairwise(texts))


def test_of_many_updates_the_newest_known_alone_is_read(tmp_path: Path) -> None:
    times_ms = [NOON_MS + step for step in range(50)]
    updates = [(an_item("a", colour=str(at), at_ms=at), at) for at in times_ms]
    found = profiles(tmp_path, NOON_MS + 20, *updates)
    assert found == {"a": {"colour": str(NOON_MS + 20)}}
    assert pq.read_metadata(tmp_path / "events" / "item-profiles.parquet").num_rows == 1


def test_a_copied_project_does_not_read_the_others_attributes(tmp_path: Path) -> None:
    """The registry, which is copied too, names the other folder."""
    from srp4ctr.features.online import feast_store

    before, after = tmp_path / "before", tmp_path / "after"
    old = (an_item("a", colour="old", at_ms=NOON_MS), NOON_MS)
    assert profiles(before, NOON_MS + 1, old) == {"a": {"colour": "old"}}
    log_dir = write_log(after / "events", [(an_item("a", colour="new"), NOON_MS)])
    copied = shutil.copy(before / "registry.db", after / "registry.db")
    config = FeatureConfig(registry=str(copied), log_dir=str(log_dir))
    with opened(log_dir) as log:
        with pytest.raises(MistakeError, match="run `srp4ctr features apply` here"):
            item_profiles(log, config, NOON_MS * 2)
        feast_store.apply(config)
        found = item_profiles(log, config, NOON_MS * 2)
    assert found == {item_key("a"): {"colour": "new"}}


def test_of_updates_at_one_instant_the_last_holds(tmp_path: Path) -> None:
    """A catalogue that is imported again, corrected: everywhere as the stream has it."""
    updates = [
        (an_item("a", colour=colour, at_ms=NOON_MS), NOON_MS)
        for colour in ("x", "b", "z", "c")
    ]
    assert profiles(tmp_path, NOON_MS + 1, *updates) == {"a": {"colour": "c"}}
    sink = MemorySink()
    restore_profiles(FeatureConfig(log_dir=str(tmp_path / "events")), sink)
    assert [profile.attributes for profile in sink.profiles.values()] == [{"colour": "c"}]


def test_no_updates_are_no_profiles(tmp_path: Path) -> None:
    assert profiles(tmp_path, NOON_MS) == {}


def test_the_store_gets_every_items_newest_attributes_again(tmp_path: Path) -> None:
    log_dir = write_log(
        tmp_path / "events",
        [
            (an_item("a", colour="new", at_ms=NOON_MS + 5), NOON_MS + 5),
            (an_item("a", colour="old", at_ms=NOON_MS + 1), NOON_MS + 6),
            (an_item("b", genre=["War", "Drama"], at_ms=NOON_MS), NOON_MS),
        ],
    )
    sink = MemorySink()
    assert restore_profiles(FeatureConfig(log_dir=str(log_dir)), sink) == 2
    found = {profile.item_id: profile for profile in sink.profiles.values()}
    assert found["a"].attributes == {"colour": "new"}
    assert found["a"].updated_at_ms == NOON_MS + 5
    assert found["b"].attributes == {"genre": ("War", "Drama")}
