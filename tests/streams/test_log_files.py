from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streams.events import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from streams.labels import LabelJoin, encode_label
from streams.log_files import OffsetRange, files_of, remove_uncommitted, write_range
from streams.log_rows import COLUMNS, Row, row_of
from streams.wire import encode
from tests.builders import NOON_MS, a_behavior, a_click, an_impression, an_item
from tests.streams.test_partition import ARecord

DAY_MS = 86_400_000


def a_row(at_ms: int = NOON_MS, offset: int = 0) -> Row:
    record = ARecord(value=encode(a_behavior(at_ms=at_ms)), timestamp=at_ms, offset=offset)
    row = row_of(record, at_ms)
    assert row is not None
    return row


def a_range(start: int, end: int) -> OffsetRange:
    return OffsetRange(topic=BEHAVIOR_EVENTS_TOPIC, partition=3, start=start, end=end)


def named(record: ARecord) -> dict[str, object]:
    row = row_of(record, NOON_MS + DAY_MS)
    assert row is not None
    return dict(zip(COLUMNS[record.topic], row, strict=True))


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


def test_a_label_becomes_a_row() -> None:
    join = LabelJoin(60_000, 0)
    join.add(an_impression(), NOON_MS)
    (label,) = join.add(a_click(), NOON_MS)
    row = named(ARecord(value=encode_label(label), topic=LABELS_TOPIC))
    assert (row["clicked"], row["revision"]) == (True, label.revision)


@pytest.mark.parametrize("topic", [BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC])
def test_a_rejected_message_has_no_row(topic: str) -> None:
    assert row_of(ARecord(value=b"{", topic=topic), NOON_MS) is None


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
    removed = remove_uncommitted(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3, 10)
    assert [path.name for path in removed] == ["3-10-14.parquet"]
    kept = files_of(tmp_path, BEHAVIOR_EVENTS_TOPIC, 3)
    assert [path.name for path in kept] == ["3-0-4.parquet", "3-5-9.parquet"]


def test_partition_1_does_not_own_the_files_of_partition_11(tmp_path: Path) -> None:
    other = OffsetRange(topic=BEHAVIOR_EVENTS_TOPIC, partition=11, start=0, end=0)
    write_range(tmp_path, other, [a_row()])
    assert files_of(tmp_path, BEHAVIOR_EVENTS_TOPIC, 1) == []
