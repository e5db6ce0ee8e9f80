from pathlib import Path

import numpy as np

from features.event_log import (
    BEHAVIOR,
    CLICK,
    IMPRESSION,
    read_events,
    read_items,
    read_labels,
)
from streams.events import UserEvent, action_code, item_key
from streams.labels import CLICKED, UNCLICKED, ImpressionLabel
from tests.builders import NOON_MS, a_behavior, a_click, an_impression, an_item
from tests.features.logs import write_log

KNOWN_MS = NOON_MS + 60_000


def a_label(item_id: str, revision: int, user_id: str = "u1") -> ImpressionLabel:
    return ImpressionLabel(
        request_id="r1",
        user_id=user_id,
        item_id=item_id,
        position=3,
        score=0.25,
        propensity=None,
        model_version="v1" if revision else None,
        impression_at=NOON_MS,
        clicked=revision != UNCLICKED,
        within_window=revision != 1,
        matured_at=NOON_MS + 9,
        revision=revision,
    )


def test_every_kind_of_event_has_its_columns(tmp_path: Path) -> None:
    shown = an_impression("a", position=4, context={"page": "home"})
    acted = [a_behavior("b", value=2.5), a_behavior("b", action="zz")]
    events: list[UserEvent] = [shown, a_click("a"), *acted]
    columns = read_events(write_log(tmp_path, [(e, KNOWN_MS) for e in events]))
    assert columns.kinds.tolist() == [IMPRESSION, CLICK, BEHAVIOR, BEHAVIOR]
    assert columns.item_keys.tolist() == [item_key(i) for i in "aabb"]
    assert columns.items.strings().tolist() == ["a", "a", "b", "b"]
    assert columns.users.strings().tolist() == ["u1"] * 4
    assert columns.requests.strings().tolist() == ["r1", "r1", None, None]
    assert columns.contexts.strings().tolist() == ['{"page":"home"}', None, None, None]
    codes = [0, action_code("click"), action_code("view"), action_code("zz")]
    assert columns.action_codes.tolist() == codes
    np.testing.assert_array_equal(columns.values, [np.nan, np.nan, 2.5, np.nan])
    assert columns.positions.tolist() == [4, -1, -1, -1]
    assert columns.created_at_ms.tolist() == [KNOWN_MS] * 4
    assert columns.visible_at_ms.tolist() == [KNOWN_MS] * 4


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert len(read_events(tmp_path / "none")) == 0
    assert len(read_labels(tmp_path / "none")) == 0
    assert read_items(tmp_path / "none").item_ids.tolist() == []


def test_files_are_read_in_the_order_of_offsets_over_days_and_partitions(
    tmp_path: Path,
) -> None:
    day_ms = 86_400_000
    write_log(tmp_path, [(a_behavior("late"), KNOWN_MS + day_ms)], partition=0, start=5)
    write_log(tmp_path, [(a_behavior("early"), KNOWN_MS)], partition=0, start=0)
    write_log(tmp_path, [(a_behavior("other"), KNOWN_MS)], partition=1, start=0)
    columns = read_events(tmp_path)
    assert columns.items.strings().tolist() == ["early", "late", "other"]


def test_an_offset_that_two_files_hold_is_one_event(tmp_path: Path) -> None:
    twice = [(a_behavior("a"), KNOWN_MS), (a_behavior("b"), KNOWN_MS)]
    write_log(tmp_path, twice)
    write_log(tmp_path, twice[:1])
    assert read_events(tmp_path).items.strings().tolist() == ["a", "b"]


def test_a_file_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    write_log(tmp_path, [(a_behavior("a"), KNOWN_MS)])
    [whole] = tmp_path.rglob("*.parquet")
    whole.with_name("0-1-1.tmp").write_bytes(b"half")
    assert len(read_events(tmp_path)) == 1


def test_the_strongest_label_of_an_impression_holds(tmp_path: Path) -> None:
    labels = [
        a_label("a", CLICKED),
        a_label("b", UNCLICKED),
        a_label("a", UNCLICKED),  # a redelivery in the wrong order
        a_label("b", UNCLICKED, user_id="u2"),
    ]
    found = read_labels(write_log(tmp_path, [(each, KNOWN_MS) for each in labels]))
    by_key = dict(
        zip(zip(found.user_ids, found.item_ids, strict=True), found.clicked, strict=True)
    )
    assert by_key == {("u1", "a"): True, ("u1", "b"): False, ("u2", "b"): False}
    assert found.positions.tolist() == [3, 3, 3]
    assert found.model_versions.tolist() == ["v1", None, None]


def test_item_updates_keep_their_attributes_as_published(tmp_path: Path) -> None:
    updates = [an_item("a", colour="red"), an_item("a", colour="blue", at_ms=NOON_MS + 1)]
    found = read_items(write_log(tmp_path, [(each, KNOWN_MS) for each in updates]))
    assert found.attributes.tolist() == ['{"colour":"red"}', '{"colour":"blue"}']
    assert found.item_keys.tolist() == [item_key("a")] * 2
    assert found.occurred_at_ms.tolist() == [NOON_MS, NOON_MS + 1]
