import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from srp4ctr.errors import ArtifactError
from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    UserEvent,
)
from srp4ctr.streams.raw_log import log_files
from srp4ctr.streams.raw_log.log_files import (
    files_of,
    known_ms,
    read_files,
    reading,
    remove_before,
    remove_uncommitted,
    remove_unfinished,
    removing,
)
from srp4ctr.streams.raw_log.log_tables import (
    OffsetRange,
    Row,
    event_of,
    row_of,
    schema_of,
    write_range,
)
from srp4ctr.streams.state.label_join import LabelJoin, encode_label
from tests.builders import (
    NOON_MS,
    a_behavior,
    a_click,
    a_forget,
    an_impression,
    an_item,
)
from tests.streams.records import ARecord, a_command

DAY_MS = 86_400_000


def a_row(at_ms: int = NOON_MS, offset: int = 0) -> Row:
    record = ARecord(value=encode(a_behavior(at_ms=at_ms)), timestamp=at_ms, offset=offset)
    row = row_of(record)
    assert row is not None
    return row


def a_range(start: int, end: int) -> OffsetRange:
    return OffsetRange(topic=BEHAVIOR_EVENTS_TOPIC, partition=3, start=start, end=end)


def named(record: ARecord) -> dict[str, object]:
    row = row_of(record)
    assert row is not None
    return dict(zip(schema_of(record.topic).names, row, strict=True))


def test_an_impression_becomes_a_row_with_its_context_as_text() -> None:
    shown = an_impression(position=0, score=0.5, context={"page": "home"})
    row = named(ARecord(value=encode(shown), timestamp=NOON_MS + 7, offset=9))
    assert (row["type"], row["position"], row["score"]) == ("impression", 0, 0.5)
    assert row["context"] == '{"page":"home"}'
    assert (row["created_at"], row["partition"], row["offset"]) == (NOON_MS + 7, 3, 9)
    assert row["action"] is None


def test_an_item_update_becomes_a_row_with_its_attributes_as_text() -> None:
    payload = encode(an_item(genre=["war"]))
    row = named(ARecord(value=payload, key=b"i1", topic=ITEMS_TOPIC))
    assert (row["item_id"], row["attributes"]) == ("i1", '{"genre":["war"]}')


def a_label() -> ARecord:
    join = LabelJoin(60_000, 0, max_kept=10)
    join.add(an_impression(), NOON_MS)
    (label,) = join.add(a_click(), NOON_MS)
    return ARecord(value=encode_label(label), topic=LABELS_TOPIC)


def test_a_label_becomes_a_row() -> None:
    row = named(a_label())
    assert (row["clicked"], row["revision"]) == (True, 2)


@pytest.mark.parametrize("topic", [BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC])
def test_a_rejected_message_has_no_row(topic: str) -> None:
    assert row_of(ARecord(value=b"{", topic=topic)) is None


EVERY_TYPE: list[UserEvent] = [
    an_impression(position=0),
    an_impression(
        position=7,
        model_version="v1",
        score=0.0,
        propensity=0.25,
        context={"page": "home", "seite": "Übersicht"},
    ),
    a_click("film 7"),
    a_behavior(action="rate", value=0.0),
    a_behavior(action="view"),
    a_forget(),
]


@pytest.mark.parametrize("event", EVERY_TYPE)
def test_a_row_gives_back_the_event_that_it_was_made_of(
    event: UserEvent, tmp_path: Path
) -> None:
    record = ARecord(value=encode(event), timestamp=NOON_MS + 10_000, offset=9)
    row = row_of(record)
    assert row is not None
    write_range(tmp_path, a_range(9, 9), [row])
    ((read,),) = read_files(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)
    logged = event_of(read)
    assert logged.event == event
    assert (logged.offset, logged.known_at_ms) == (9, NOON_MS + 10_000)


def test_an_operators_command_is_not_in_the_log() -> None:
    assert row_of(a_command(1)) is None


def test_rows_go_to_a_file_per_date(tmp_path: Path) -> None:
    write_range(tmp_path, a_range(0, 1), [a_row(), a_row(NOON_MS + DAY_MS, offset=1)])
    topic = tmp_path / BEHAVIOR_EVENTS_TOPIC
    assert sorted(str(path.relative_to(topic)) for path in topic.rglob("*.*")) == [
        "date=2023-11-14/3-0-1.parquet",
        "date=2023-11-15/3-0-1.parquet",
    ]


def test_the_same_range_again_is_the_same_file(tmp_path: Path) -> None:
    (path,) = write_range(tmp_path, a_range(0, 0), [a_row()])
    before = path.read_bytes()
    assert write_range(tmp_path, a_range(0, 0), [a_row()]) == [path]
    assert path.read_bytes() == before
    assert pq.ParquetFile(path).read().num_rows == 1


def test_only_files_from_the_committed_offset_on_are_removed(tmp_path: Path) -> None:
    for start in (0, 5, 10):
        write_range(tmp_path, a_range(start, start + 4), [a_row()])
    remove_uncommitted(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3, 10)
    kept = files_of(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)
    assert [path.name for path in kept] == ["3-0-4.parquet", "3-5-9.parquet"]


def test_partition_1_does_not_own_the_files_of_partition_11(tmp_path: Path) -> None:
    other = OffsetRange(topic=BEHAVIOR_EVENTS_TOPIC, partition=11, start=0, end=0)
    write_range(tmp_path, other, [a_row()])
    assert files_of(tmp_path, BEHAVIOR_EVENTS_TOPIC, 1) == []


def rows_at(*offsets: int, at_ms: int = NOON_MS) -> list[Row]:
    return [a_row(at_ms, offset) for offset in offsets]


def offsets_read(log_dir: Path) -> list[list[int]]:
    found = read_files(log_dir, BEHAVIOR_EVENTS_TOPIC, 3)
    return [[row["offset"] for row in rows] for rows in found]


def test_a_range_over_two_dates_is_read_at_once_and_in_order(tmp_path: Path) -> None:
    midnight = NOON_MS // DAY_MS * DAY_MS + DAY_MS
    write_range(tmp_path, a_range(0, 1), rows_at(0, 1))
    mixed = [a_row(midnight - 1, 2), a_row(midnight, 3), a_row(midnight - 2, 4)]
    write_range(tmp_path, a_range(2, 4), mixed)
    write_range(tmp_path, a_range(10, 11), rows_at(10, 11, at_ms=midnight))
    assert len(files_of(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)) == 4
    assert offsets_read(tmp_path) == [[0, 1], [2, 3, 4], [10, 11]]


def test_a_long_file_is_read_some_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "_ROWS_AT_ONCE", 3)
    write_range(tmp_path, a_range(0, 7), rows_at(*range(8)))
    assert offsets_read(tmp_path) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_when_an_offset_became_known_is_in_the_last_file_that_is_not_behind_it(
    tmp_path: Path,
) -> None:
    for start in (0, 5, 10):
        write_range(tmp_path, a_range(start, start + 4), [a_row(NOON_MS + start, start)])
    known = {at: known_ms(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3, at) for at in (0, 4, 5, 99)}
    assert known == {0: NOON_MS, 4: NOON_MS, 5: NOON_MS + 5, 99: NOON_MS + 10}


def test_offsets_that_a_crash_left_twice_are_read_once(tmp_path: Path) -> None:
    write_range(tmp_path, a_range(0, 4), rows_at(0, 1, 2, 4))
    write_range(tmp_path, a_range(2, 6), rows_at(2, 4, 5, 6))
    write_range(tmp_path, a_range(3, 4), rows_at(4))
    write_range(tmp_path, a_range(4, 7), rows_at(4, 6, 7))
    assert offsets_read(tmp_path) == [[0, 1, 2, 4, 5, 6, 7]]


def test_two_ranges_from_one_offset_on_are_read_once(tmp_path: Path) -> None:
    write_range(tmp_path, a_range(0, 1), rows_at(0, 1))
    write_range(tmp_path, a_range(0, 2), rows_at(0, 1, 2))
    assert offsets_read(tmp_path) == [[0, 1, 2]]


def test_a_partition_without_files_has_no_rows(tmp_path: Path) -> None:
    assert offsets_read(tmp_path) == []


def test_dates_before_a_day_are_removed_from_every_topic(tmp_path: Path) -> None:
    row = row_of(a_label())
    assert row is not None
    labelled = OffsetRange(topic=LABELS_TOPIC, partition=0, start=0, end=0)
    write_range(tmp_path, labelled, [row])
    for day in range(3):
        write_range(tmp_path, a_range(day, day), rows_at(day, at_ms=NOON_MS + day * DAY_MS))
    removed = remove_before(tmp_path, date(2023, 11, 16))
    assert removed is not None
    assert [str(path.relative_to(tmp_path)) for path in removed] == [
        "behavior-events/date=2023-11-14",
        "behavior-events/date=2023-11-15",
        "impression-labels/date=2023-11-14",
    ]
    assert offsets_read(tmp_path) == [[2]]
    assert remove_before(tmp_path, date(2023, 11, 16)) == []


def test_a_date_is_not_removed_from_under_a_reader(tmp_path: Path) -> None:
    write_range(tmp_path, a_range(0, 0), [a_row()])
    with reading(tmp_path):
        assert remove_before(tmp_path, date(2024, 1, 1)) is None
        assert offsets_read(tmp_path) == [[0]]
    assert len(remove_before(tmp_path, date(2024, 1, 1)) or ()) == 1


def test_who_reads_does_not_wait_while_files_of_old_dates_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[list[int]]] = []

    def killed(path: Path, ignore_errors: bool) -> None:
        with removing(tmp_path) as is_exclusive:
            assert is_exclusive  # so nobody else holds the lock
        read.append(offsets_read(tmp_path))

    write_range(tmp_path, a_range(0, 0), [a_row()])
    write_range(tmp_path, a_range(1, 1), [a_row(NOON_MS + DAY_MS, 1)])
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        remove_before(tmp_path, date(2023, 11, 15))
    assert read == [[[1]]]
    topic = tmp_path / BEHAVIOR_EVENTS_TOPIC
    assert len(list(topic.iterdir())) == 2
    assert remove_before(tmp_path, date(2023, 11, 15)) == []
    assert [path.name for path in topic.iterdir()] == ["date=2023-11-15"]


def test_what_a_kill_left_unfinished_is_removed_for_its_partition(tmp_path: Path) -> None:
    [path] = write_range(tmp_path, a_range(0, 0), [a_row()])
    for name in ("3-0-7.beef.tmp", "33-0-7.beef.tmp"):
        path.with_name(name).touch()
    with reading(tmp_path):  # it may be who erases, at work
        remove_unfinished(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)
    assert len(list(tmp_path.rglob("*.tmp"))) == 2
    remove_unfinished(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)
    assert [left.name for left in tmp_path.rglob("*.tmp")] == ["33-0-7.beef.tmp"]
    assert offsets_read(tmp_path) == [[0]]


def test_the_lock_is_held_to_remove_what_a_kill_left_not_to_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*_: object) -> Iterator[Path]:
        with removing(tmp_path) as is_exclusive:
            assert is_exclusive
        yield tmp_path / "3-0-7.beef.tmp"

    monkeypatch.setattr(log_files, "unfinished_files", found)
    remove_unfinished(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)


@pytest.mark.parametrize("content", [b"", b"PAR1 broken", b"PAR1 brokPAR1\4\0\0\0PAR1"])
@pytest.mark.parametrize("files", [1, 2])
def test_a_damaged_file_is_an_error_that_names_it(
    tmp_path: Path, content: bytes, files: int
) -> None:
    for end in range(files):  # of two that overlap all rows are needed at once
        [path] = write_range(tmp_path, a_range(0, end), [a_row()])
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path} is damaged"):
        list(read_files(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3))
