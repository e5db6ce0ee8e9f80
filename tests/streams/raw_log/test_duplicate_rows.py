from pathlib import Path

import pyarrow.parquet as pq
import pytest

from srp4ctr.streams.events.codec import encode, event_key
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log.duplicate_rows import remove_repeated
from srp4ctr.streams.raw_log.log_files import OffsetRange, files_of, read_files, write_range
from srp4ctr.streams.raw_log.row_schema import row_of
from tests.builders import NOON_MS, a_behavior
from tests.streams.state.test_partition_state import ARecord

TOPIC, PARTITION = BEHAVIOR_EVENTS_TOPIC, 3
MIDNIGHT_AT = 20  # the offset with which a new day begins
MIDNIGHT_MS = NOON_MS - NOON_MS % 86_400_000 + 86_400_000


def write(
    log_dir: Path, start: int, end: int, rejected: frozenset[int] = frozenset()
) -> None:
    """Write what a writer would that has taken the records ``start`` to ``end``."""
    event = a_behavior()
    records = [
        ARecord(
            value=encode(event),
            key=event_key(event),
            offset=offset,
            timestamp=MIDNIGHT_MS + (offset - MIDNIGHT_AT) * 1000,
            partition=PARTITION,
        )
        for offset in range(start, end + 1)
        if offset not in rejected
    ]
    covered = OffsetRange(topic=TOPIC, partition=PARTITION, start=start, end=end)
    rows = [row for row in map(row_of, records) if row is not None]
    write_range(log_dir, covered, rows)


def logged(log_dir: Path) -> list[int]:
    """Return every offset in the log, as often as it is there."""
    tables = [
        pq.ParquetFile(path).read(["offset"])
        for path in files_of(log_dir, TOPIC, PARTITION)
    ]
    return sorted(offset for table in tables for offset in table["offset"].to_pylist())


@pytest.mark.parametrize(
    "zombies", [(5, 7), (5, 14), (5, 24), (5, 29), (15, 18), (15, 24), (0, 29), (0, 4)]
)
def test_what_a_zombie_wrote_leaves_each_offset_once(
    tmp_path: Path, zombies: tuple[int, int]
) -> None:
    for start, end in ((0, 4), (5, 14), (15, 24), (25, 29)):
        write(tmp_path, start, end)
    write(tmp_path, *zombies)
    remove_repeated(tmp_path, TOPIC, PARTITION)
    assert logged(tmp_path) == list(range(30))


def test_offsets_of_rejected_messages_are_in_no_file_and_missed_by_nobody(
    tmp_path: Path,
) -> None:
    rejected = frozenset({4, 5, 9, 10})
    for start, end in ((0, 4), (6, 14)):  # of 5 alone there is no file
        write(tmp_path, start, end, rejected)
    write(tmp_path, 0, 9, rejected)
    remove_repeated(tmp_path, TOPIC, PARTITION)
    assert logged(tmp_path) == [each for each in range(15) if each not in rejected]


def test_no_row_is_lost_where_no_choice_is_exact(tmp_path: Path) -> None:
    write(tmp_path, 0, 6)
    write(tmp_path, 4, 9)
    assert remove_repeated(tmp_path, TOPIC, PARTITION) == []
    assert set(logged(tmp_path)) == set(range(10))


def test_a_log_without_overlaps_stays_as_it_is(tmp_path: Path) -> None:
    for start, end in ((0, 9), (10, 25), (27, 30)):
        write(tmp_path, start, end)
    assert remove_repeated(tmp_path, TOPIC, PARTITION) == []


def test_a_range_with_holes_covers_nothing_but_its_rows(tmp_path: Path) -> None:
    holes = frozenset(range(50, 61)) - {50, 55}  # killed between the files of two dates
    write(tmp_path, 50, 60, rejected=holes)
    for start, end in ((50, 50), (51, 51), (52, 60)):
        write(tmp_path, start, end)
    remove_repeated(tmp_path, TOPIC, PARTITION)
    rows = [row for batch in read_files(tmp_path, TOPIC, PARTITION) for row in batch]
    assert [row["offset"] for row in rows] == list(range(50, 61))
