"""Small files of the raw log are joined: each row stays once, also with two writers."""

from collections.abc import Callable
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from srp4ctr.errors import OutageError
from srp4ctr.streams.raw_log import compaction
from srp4ctr.streams.raw_log.compaction import compact
from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    covered_offsets,
    dataset,
    opened,
    partitions_of,
    vacuum,
)
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.testing.raw_logs import Published, write_log
from tests.builders import NOON_MS, a_behavior, a_forget
from tests.streams.logs import MIDNIGHT_AT, PARTITION, TOPIC, files, offsets, rows, write

PLACE = (TOPIC, PARTITION)


@pytest.mark.parametrize("spans", [1, 2], ids=["two commits", "one commit"])
def test_small_files_are_joined_each_date_separately(
    raw_log: Log, monkeypatch: pytest.MonkeyPatch, spans: int
) -> None:
    monkeypatch.setattr(compaction, "_SPANS_IN_COMMIT", spans)
    for start in range(16, 26, 2):  # a new day begins with offset 20
        write(raw_log, start, start + 2)
    before, covered = rows(raw_log), covered_offsets(raw_log, *PLACE)
    snapshot = dataset(raw_log, TOPIC)
    assert compact(raw_log, *PLACE) == 5
    assert rows(raw_log) == before
    assert covered_offsets(raw_log, *PLACE) == covered == (16, 25)
    assert len(dataset(raw_log, TOPIC).files) == 2
    assert snapshot.count_rows() == 10  # who has begun reads on
    vacuum(raw_log, TOPIC)
    assert snapshot.count_rows() == 10
    assert compact(raw_log, *PLACE) == 0
    vacuum(raw_log, TOPIC, at_once=True)
    assert len(files(raw_log)) == 2
    assert rows(raw_log) == before


def test_a_large_file_waits_until_more_has_come(raw_log: Log) -> None:
    start, end = MIDNIGHT_AT, 10_000
    write(raw_log, start, end)
    (large,) = files(raw_log)
    write(raw_log, end, end + 2)
    assert compact(raw_log, *PLACE) == 0
    write(raw_log, end + 2, end + 4)
    assert compact(raw_log, *PLACE) == 2
    assert len(found := dataset(raw_log, TOPIC).files) == 2
    assert large in found
    write(raw_log, end + 4, 2 * end)
    assert compact(raw_log, *PLACE) == 3
    assert offsets(raw_log) == list(range(start, 2 * end))


def test_a_partition_is_joined_separately(raw_log: Log) -> None:
    for partition in (0, 1):
        for offset in (0, 1):
            write_log(raw_log, [(a_behavior(), NOON_MS)], partition, offset)
    assert compact(raw_log, TOPIC, 1) == 2
    assert len(dataset(raw_log, TOPIC).files) == 3
    assert partitions_of(raw_log, TOPIC) == [0, 1]


def meanwhile(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Call ``other`` between what a compaction reads and what it writes."""

    def write_late(table: DeltaTable, *args: Any, **options: Any) -> None:
        with monkeypatch.context() as undone:
            undone.setattr(compaction, "write_deltalake", write_deltalake)
            other()
        write_deltalake(table, *args, **options)

    monkeypatch.setattr(compaction, "write_deltalake", write_late)


def test_of_two_that_join_the_same_files_one_is_refused(
    raw_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(0, 8, 2):
        write(raw_log, start, start + 2)
    meanwhile(monkeypatch, lambda: compact(raw_log, *PLACE))
    with pytest.raises(OutageError, match="oncurrent"):
        compact(raw_log, *PLACE)
    assert offsets(raw_log) == list(range(8))
    assert len(dataset(raw_log, TOPIC).files) == 1


def test_who_is_erased_meanwhile_does_not_come_back(
    raw_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Published] = [(a_behavior(), NOON_MS), (a_forget(), NOON_MS + 1)]
    for offset, event in enumerate(events):
        write_log(raw_log, [event], PARTITION, offset)
    meanwhile(monkeypatch, lambda: erase_forgotten(raw_log))
    with pytest.raises(OutageError):
        compact(raw_log, *PLACE)
    assert offsets(raw_log) == [1]


def test_what_is_added_meanwhile_stays(
    raw_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in (0, 2):
        write(raw_log, start, start + 2)
    meanwhile(monkeypatch, lambda: write(raw_log, 4, 6))
    assert compact(raw_log, *PLACE) == 2
    assert offsets(raw_log) == list(range(6))


def test_only_neighbours_up_to_a_size_are_joined(
    raw_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(0, 10, 2):
        write(raw_log, start, start + 2)
    table = opened(raw_log, TOPIC)
    assert table is not None
    sizes = table.get_add_actions(flatten=True)["size_bytes"].to_pylist()
    monkeypatch.setattr(compaction, "FILE_BYTES", 2 * max(sizes))
    assert compact(raw_log, *PLACE) == 4  # the last has no neighbour left
    assert len(dataset(raw_log, TOPIC).files) in (2, 3)
    assert offsets(raw_log) == list(range(10))
