from pathlib import Path

import pytest

from srp4ctr.streams.raw_log.compaction import remove_duplicates
from srp4ctr.streams.raw_log.log_files import read_files
from tests.streams.logs import PARTITION, TOPIC, logged_offsets, write


@pytest.mark.parametrize(
    "zombies", [(5, 7), (5, 14), (5, 24), (5, 29), (15, 18), (15, 24), (0, 29), (0, 4)]
)
def test_what_a_zombie_wrote_leaves_each_offset_once(
    tmp_path: Path, zombies: tuple[int, int]
) -> None:
    for start, end in ((0, 4), (5, 14), (15, 24), (25, 29)):
        write(tmp_path, start, end)
    write(tmp_path, *zombies)
    remove_duplicates(tmp_path, TOPIC, PARTITION)
    assert logged_offsets(tmp_path) == list(range(30))


def test_offsets_of_rejected_messages_are_in_no_file_and_missed_by_nobody(
    tmp_path: Path,
) -> None:
    rejected = frozenset({4, 5, 9, 10})
    for start, end in ((0, 4), (6, 14)):  # 5 is in no file
        write(tmp_path, start, end, rejected)
    write(tmp_path, 0, 9, rejected)
    remove_duplicates(tmp_path, TOPIC, PARTITION)
    assert logged_offsets(tmp_path) == [each for each in range(15) if each not in rejected]


def test_no_row_is_lost_where_no_choice_is_exact(tmp_path: Path) -> None:
    write(tmp_path, 0, 6)
    write(tmp_path, 4, 9)
    assert remove_duplicates(tmp_path, TOPIC, PARTITION) == []
    assert set(logged_offsets(tmp_path)) == set(range(10))


def test_a_log_without_overlaps_stays_as_it_is(tmp_path: Path) -> None:
    for start, end in ((0, 9), (10, 25), (27, 30)):
        write(tmp_path, start, end)
    assert remove_duplicates(tmp_path, TOPIC, PARTITION) == []


def test_a_range_with_holes_covers_nothing_but_its_rows(tmp_path: Path) -> None:
    holes = frozenset(range(50, 61)) - {50, 55}  # killed between the files of two dates
    write(tmp_path, 50, 60, rejected=holes)
    for start, end in ((50, 50), (51, 51), (52, 60)):
        write(tmp_path, start, end)
    remove_duplicates(tmp_path, TOPIC, PARTITION)
    rows = [row for batch in read_files(tmp_path, TOPIC, PARTITION) for row in batch]
    assert [row["offset"] for row in rows] == list(range(50, 61))
