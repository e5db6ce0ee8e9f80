"""Recent users and items from the raw log's newest rows."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from safetensors.numpy import save_file

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle_items import ids_by_key
from srp4ctr.features.config import FeatureConfig
from srp4ctr.playground import reads
from srp4ctr.playground.reads import recent_ids
from srp4ctr.settings import Settings
from srp4ctr.streams.events.schema import (
    SYNTHETIC_USERS,
    UserEvent,
    action_code,
    item_key,
)
from srp4ctr.testing.raw_logs import write_log
from tests.builders import NOON_MS, a_behavior, a_click, an_impression


def write(log_dir: Path, partition: int, start: int, *events: UserEvent) -> None:
    known = [(event, event.occurred_at) for event in events]
    write_log(log_dir, known, partition, start)


def test_the_newest_user_comes_first_and_once(tmp_path: Path) -> None:
    for partition, user in enumerate(("ann", "ben")):
        at_ms = NOON_MS + 1_000 * partition
        shown = an_impression("i1", at_ms=at_ms, user_id="only-shown")
        click = a_click("i2", at_ms=at_ms, user_id=user)
        view = a_behavior("i3", at_ms=at_ms + 10, user_id=user)
        write(tmp_path, partition, 0, shown, click, view)
    probe = a_behavior("i1", at_ms=NOON_MS + 5_000, user_id=f"{SYNTHETIC_USERS}1")
    write(tmp_path, 2, 0, probe)  # not a real user
    found = recent_ids(tmp_path, partitions=3, limit=10)
    assert found.actions == {"view"}
    assert found.users == ["ben", "ann"]
    assert found.items == ["i1", "i3", "i2"]
    assert recent_ids(tmp_path, partitions=2, limit=1).users == ["ben"]


def test_a_user_who_acts_alone_does_not_hide_those_before(tmp_path: Path) -> None:
    for place in range(40):
        user = "alone" if place >= 15 else f"u{place}"
        write(tmp_path, 0, place, a_click(at_ms=NOON_MS + place, user_id=user))
    expected = ["alone", "u14", "u13", "u12", "u11", "u10", "u9", "u8", "u7", "u6"]
    assert recent_ids(tmp_path, partitions=1, limit=10).users == expected


def test_only_the_newest_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "_ROWS", 2)
    users = [a_click(at_ms=NOON_MS + place, user_id=f"u{place}") for place in range(5)]
    write(tmp_path, 0, 0, *users)
    assert recent_ids(tmp_path, partitions=1, limit=10).users == ["u4", "u3"]


def test_a_missing_log_has_no_ids(tmp_path: Path) -> None:
    assert recent_ids(tmp_path / "nowhere", partitions=4, limit=10).users == []


def test_a_hashed_action_has_the_name_that_the_log_has(tmp_path: Path) -> None:
    """Named ones need no log; an action that comes later is looked for again."""
    log_dir = tmp_path / "events"
    found = reads.PlaygroundReads(Settings(features=FeatureConfig(log_dir=str(log_dir))))
    skip, wink = action_code("skip"), action_code("wink")
    write(log_dir, 0, 0, a_behavior(action="skip"))
    assert found.actions([action_code("hide")]) == {}
    assert found.actions([skip]) == {skip: "skip"}
    write(log_dir, 0, 1, a_behavior(action="wink", at_ms=NOON_MS + 1))
    assert found.actions([skip, wink]) == {skip: "skip", wink: "wink"}


def test_items_without_attributes_are_named_by_their_ids(tmp_path: Path) -> None:
    """The newest events and the serving bundle have ids; the store has only profiles."""
    write(tmp_path / "events", 0, 0, a_click("recent"))
    names = ["known", "b-side", "ärger"]
    keys = sorted(map(item_key, names))
    ids = [next(n for n in names if item_key(n) == key).encode() for key in keys]
    path = tmp_path / bundle.ITEMS_FILE
    ends = np.cumsum([len(each) for each in ids])
    letters = np.frombuffer(b"".join(ids), dtype=np.uint8)
    save_file({"id_letters": letters, "id_ends": ends}, path)
    assert ids_by_key(path, keys, [item_key("known"), item_key("ärger"), 7]) == {
        item_key("known"): "known",
        item_key("ärger"): "ärger",
    }
    assert ids_by_key(tmp_path / "none", keys, keys) == {}
    config = FeatureConfig(log_dir=str(tmp_path / "events"))
    found = reads.PlaygroundReads(Settings(features=config))
    with patch.object(found, "_profiles", lambda _: {}):
        shown = found.items([item_key("recent"), 7])
    assert [(each.item_id, each.title) for each in shown.values()] == [
        ("recent", "recent"),
        ("", "key 7"),
    ]
