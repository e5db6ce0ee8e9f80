"""Files of the raw log that overlap → those of which each offset is in one.

A writer that was suspended past its session, and has lost its partitions without knowing,
finishes its files all the same; one that crashes while it merges leaves the small files
next to the big one. The partition's next writer removes the duplicates.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from srp4ctr.streams.raw_log.log_files import files_of, overlapping
from srp4ctr.streams.raw_log.log_lock import reading

_Range = tuple[int, int]  # first and last offset, as the files' names have them


def remove_duplicates(log_dir: Path, topic: str, partition: int) -> list[Path]:
    """Remove files of which others hold every row, and return them; no row is lost."""
    removed: list[Path] = []
    with reading(log_dir):  # a writer that lost the partition may be merging what we keep
        for files in overlapping(files_of(log_dir, topic, partition)):
            ranges: dict[_Range, list[Path]] = {}
            for path in files:
                _, start, end = path.stem.split("-")
                ranges.setdefault((int(start), int(end)), []).append(path)
            if len(ranges) > 1:
                kept = _exact_cover({each: _offsets(ranges[each]) for each in ranges})
                for each in ranges:
                    removed += [] if kept is None or each in kept else ranges[each]
        for path in removed:
            path.unlink(missing_ok=True)
    return removed


def _exact_cover(offsets_of: Mapping[_Range, list[int]]) -> set[_Range] | None:
    """Return ranges that hold every offset once; None where there is no such choice."""
    everything = sorted({each for offsets in offsets_of.values() for each in offsets})
    begin_at: dict[int, list[_Range]] = {}
    for each, offsets in offsets_of.items():
        if offsets:  # all of a file may have been erased
            begin_at.setdefault(offsets[0], []).append(each)
    reached: dict[int, set[_Range]] = {0: set()}  # how many offsets, by which ranges
    for number, offset in enumerate(everything):
        for each in begin_at.get(offset, ()) if number in reached else ():
            offsets = offsets_of[each]
            if everything[number : number + len(offsets)] == offsets:
                reached.setdefault(number + len(offsets), reached[number] | {each})
    return reached.get(len(everything))


def _offsets(paths: Iterable[Path]) -> list[int]:
    """Return the offsets in the files of one range, one for each date."""
    tables = [pq.ParquetFile(path).read(["offset"]) for path in paths]
    return sorted(number for table in tables for number in table["offset"].to_pylist())
