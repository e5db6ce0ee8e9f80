from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deltalake import write_deltalake

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline.event_tables import EventLog, Limits, opened, opened_by
from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    UserEvent,
    action_code,
    item_key,
)
from srp4ctr.streams.raw_log.compaction import compact
from srp4ctr.streams.raw_log.delta_tables import reading
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.streams.raw_log.log_tables import row_of, table_of
from srp4ctr.streams.state.label_join import CLICKED, CLICKED_LATE, UNCLICKED
from srp4ctr.testing.raw_logs import Published, label_of, write_log
from tests.builders import (
    NOON_MS,
    a_behavior,
    a_click,
    a_forget,
    an_impression,
    an_item,
)
from tests.streams.records import ARecord

KNOWN_MS = NOON_MS + 60_000


@contextmanager
def a_log(folder: Path, *published: Published) -> Iterator[EventLog]:
    with opened(write_log(folder, published)) as log:
        yield log


def test_every_kind_of_event_has_its_columns(tmp_path: Path) -> None:
    shown = an_impression("a", position=4, context={"page": "home"})
    acted = [a_behavior("b", value=2.5), a_behavior("b", action="zz")]
    events: list[UserEvent] = [shown, a_click("a"), *acted]
    with a_log(tmp_path, *((event, KNOWN_MS) for event in events)) as log:
        rows = log.rows(log.events.order_by("offset")).to_pydict()
    assert rows["type"] == ["impression", "click", "behavior", "behavior"]
    assert rows["item_key"] == [item_key(i) for i in "aabb"]
    assert rows["user_id"] == ["u1"] * 4
    assert rows["request_id"] == ["r1", "r1", None, None]
    assert rows["context"] == ['{"page":"home"}', None, None, None]
    codes = [0, action_code("click"), action_code("view"), action_code("zz")]
    assert rows["action_code"] == codes
    assert rows["value"] == [None, None, 2.5, None]
    assert rows["position"] == [4, None, None, None]
    assert rows["visible_at"] == [KNOWN_MS] * 4


def test_impressions_are_shown_once_their_label_windows_have_closed(
    tmp_path: Path,
) -> None:
    """A click has its label at once, an impression without one waits for its window."""
    clicked: dict[str, object] = {"clicked": True, "revision": CLICKED}
    unclicked: dict[str, object] = {}
    waits = None
    of_partition: dict[int, list[dict[str, object] | None]] = {
        0: [waits, unclicked, clicked, unclicked, clicked, waits, clicked, waits],
        1: [unclicked, clicked, clicked],  # later than where the other one's wait
        2: [clicked, waits, clicked],
    }
    for partition, labels in of_partition.items():
        published: list[Published] = []
        for minute, label in enumerate(labels):
            at_ms = NOON_MS + 60_000 * minute
            shown = an_impression(request_id=f"{partition}-{minute}", at_ms=at_ms)
            published.append((shown, at_ms))
            if label is not None:
                published.append((label_of(shown, **label), at_ms))
        write_log(tmp_path, published, partition)
    with opened(tmp_path) as log:
        rows = log.rows(log.shown.order_by("request_id"))["request_id"].to_pylist()
    assert rows == [*(f"0-{each}" for each in range(5)), "1-0", "1-1", "1-2", "2-0"]


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    with opened(tmp_path / "none") as log:
        for table in (log.events, log.labels, log.items, log.forgotten):
            assert len(log.rows(table)) == 0


@pytest.mark.parametrize("part", [slice(0), slice(4, 200), slice(-50, None)])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, part: slice) -> None:
    """Cut to nothing, in its pages, or in its footer."""
    folder = write_log(tmp_path, [(an_item("a", colour="red"), KNOWN_MS)])
    (path,) = folder.rglob("*.parquet")
    content = bytearray(path.read_bytes())
    content[part] = b"\xff" * len(content[part])
    path.write_bytes(content if part.stop != 0 else b"")
    with (
        pytest.raises(ArtifactError, match=f"{path} is damaged"),
        opened(folder) as log,
    ):
        log.rows(log.items)


def test_a_log_too_large_for_the_memory_is_an_error_that_names_the_setting(
    tmp_path: Path,
) -> None:
    shown = [(an_impression(f"i{n}", request_id=f"r{n}"), KNOWN_MS) for n in range(20_000)]
    folder = write_log(tmp_path, shown)
    with (
        pytest.raises(MistakeError, match=r"features\.offline_memory_gb = 0\.01"),
        opened(folder, limits=Limits(memory_gb=0.01)) as log,
    ):
        log.rows(log.events.order_by("item_id"))


def test_the_engine_keeps_to_the_memory_and_the_folder_that_are_set(
    tmp_path: Path,
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    config = FeatureConfig(
        log_dir=str(tmp_path), offline_memory_gb=0.25, offline_temp_dir=str(spill)
    )
    names = ("memory_limit", "temp_directory", "enable_progress_bar")
    settings = ", ".join(f"current_setting('{name}')" for name in names)
    with opened_by(config) as log:
        ((limit, folder, is_shown),) = log.database.raw_sql(f"SELECT {settings}").fetchall()
    assert limit == "238.4 MiB"
    assert not is_shown
    assert Path(folder).parent == spill
    assert list(spill.iterdir()) == []


def test_the_less_memory_the_more_parts(tmp_path: Path) -> None:
    counts = {}
    for memory_gb in (0.25, 0.5, 4.0):
        with opened(tmp_path, limits=Limits(memory_gb=memory_gb)) as log:
            counts[memory_gb] = len(log.parts("user_id", 10_000_000))
    assert counts == {0.25: 5, 0.5: 3, 4.0: 1}


def test_the_files_of_all_days_and_partitions_are_one_table(tmp_path: Path) -> None:
    day_ms = 86_400_000
    write_log(tmp_path, [(a_behavior("early"), KNOWN_MS)], partition=0, start=0)
    write_log(tmp_path, [(a_behavior("late"), KNOWN_MS + day_ms)], partition=0, start=5)
    write_log(tmp_path, [(a_behavior("other"), KNOWN_MS)], partition=1, start=0)
    with opened(tmp_path) as log:
        found = log.rows(log.events.order_by("partition", "offset"))
    assert found["item_id"].to_pylist() == ["early", "late", "other"]


def test_a_table_of_an_older_release_may_lack_columns(tmp_path: Path) -> None:
    row = row_of(ARecord(value=encode(an_impression("a")), partition=0, offset=0))
    assert row is not None
    old = table_of(BEHAVIOR_EVENTS_TOPIC, [row])
    old = old.drop_columns(["context", "numbers", "propensity"])
    folder = tmp_path / BEHAVIOR_EVENTS_TOPIC
    write_deltalake(folder, old, partition_by=["date", "partition"])
    with opened(tmp_path) as log:  # no file has them
        assert log.rows(log.events)["context"].to_pylist() == [None]
    write_log(tmp_path, [(an_impression("b", context={}), KNOWN_MS)], start=1)
    shown = an_impression("c", context={"x": "y"}, numbers={"price": 2.0})
    write_log(tmp_path, [(shown, KNOWN_MS)], start=2)
    with opened(tmp_path) as log:  # some have
        found = log.rows(log.events.order_by("offset"))
    assert found["context"].to_pylist() == [None, None, '{"x":"y"}']
    assert found["numbers"].to_pylist() == [None, None, '{"price":2.0}']


def test_an_open_log_is_read_as_it_was(tmp_path: Path) -> None:
    write_log(tmp_path, [(a_behavior("a"), KNOWN_MS)])
    with opened(tmp_path) as log:
        write_log(tmp_path, [(a_behavior("b"), KNOWN_MS)], start=1)
        compact(tmp_path, BEHAVIOR_EVENTS_TOPIC, 0)
        assert len(log.rows(log.events)) == 1


def test_files_that_an_erasure_removed_meanwhile_are_an_outage(tmp_path: Path) -> None:
    write_log(tmp_path, [(a_behavior(), KNOWN_MS), (a_forget(at_ms=KNOWN_MS), KNOWN_MS)])
    with opened(tmp_path) as log:
        erase_forgotten(tmp_path)
        with pytest.raises(OutageError, match="try again"), reading(tmp_path):
            log.rows(log.events)


def test_the_strongest_label_of_an_impression_holds(tmp_path: Path) -> None:
    a, b, c = (an_impression(item) for item in "abc")
    labels = [
        label_of(a, clicked=True, revision=CLICKED),
        label_of(b),
        label_of(a, revision=UNCLICKED),  # a redelivery in the wrong order
        label_of(c, revision=UNCLICKED),
        label_of(c, clicked=True, within_window=False, revision=CLICKED_LATE),
        label_of(an_impression("b", user_id="u2"), clicked=True, revision=CLICKED),
    ]
    shown = [(each, KNOWN_MS) for each in (a, b, c)]
    with a_log(tmp_path, *shown, *((label, KNOWN_MS) for label in labels)) as log:
        rows = log.rows(log.labels).to_pylist()
    clicked = {(row["user_id"], row["item_key"]): row["clicked"] for row in rows}
    assert clicked == {
        ("u1", item_key("a")): True,
        ("u1", item_key("b")): False,
        ("u1", item_key("c")): True,  # a late click corrects what the window said
        ("u2", item_key("b")): True,
    }


def test_item_updates_keep_their_attributes_as_published(tmp_path: Path) -> None:
    updates = [an_item("a", colour="red"), an_item("a", colour="blue", at_ms=NOON_MS + 1)]
    with a_log(tmp_path, *((update, KNOWN_MS) for update in updates)) as log:
        rows = log.rows(log.items.order_by("offset")).to_pydict()
    assert rows["attributes"] == ['{"colour":"red"}', '{"colour":"blue"}']
    assert rows["item_key"] == [item_key("a")] * 2
    assert rows["occurred_at"] == [NOON_MS, NOON_MS + 1]


def test_events_before_an_erasure_request_are_not_remembered(tmp_path: Path) -> None:
    published: list[Published] = [
        (a_behavior("before", at_ms=NOON_MS - 9), NOON_MS - 9),
        (a_behavior("other", at_ms=NOON_MS - 9, user_id="u2"), NOON_MS - 9),
        (a_forget(at_ms=NOON_MS), NOON_MS),
        (a_behavior("late", at_ms=NOON_MS), NOON_MS + 1),
        (a_behavior("new", at_ms=NOON_MS + 1), NOON_MS + 1),
        (a_forget(at_ms=NOON_MS - 5), NOON_MS + 2),  # an older request changes nothing
    ]
    with a_log(tmp_path, *published) as log:
        assert set(log.rows(log.events)["type"].to_pylist()) == {"behavior"}
        found = log.rows(log.remembered(log.events).order_by("offset"))
    assert found["item_id"].to_pylist() == ["other", "new"]
