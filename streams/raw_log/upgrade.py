"""A raw log of a release before 0.3.0 → Delta Lake tables, in the same folder or elsewhere.

In: ``<topic>/date=YYYY-MM-DD/<partition>-<start>-<end>.parquet``, some of which may repeat
others' offsets after a crash. Out: the tables, with each offset once; the old files are
removed last. A call that was killed is made again: what it wrote is replaced.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import write_deltalake

from srp4ctr.errors import ArtifactError
from srp4ctr.streams.raw_log.delta_tables import (
    LOGGED_TOPICS,
    OLD_FILES,
    Log,
    append,
    created,
    first_offset,
    next_offset,
    outages,
)
from srp4ctr.streams.raw_log.log_tables import dated, table_of


def upgrade(log_dir: Path, log: Log, progress: Callable[[int], None]) -> int:
    """Bring the old files in ``log_dir`` into ``log`` and return how many rows came.

    No worker may run. ``progress`` gets the number of rows of each file. Raises
    ``ArtifactError`` for a damaged file, and for a table that has other rows.
    """
    moved = 0
    for topic in LOGGED_TOPICS:
        paths = sorted((log_dir / topic).glob(OLD_FILES), key=_numbers)
        for partition, files in groupby(paths, lambda path: _numbers(path)[0]):
            for rows in _upgrade(log, topic, partition, list(files)):
                progress(rows)
                moved += rows
    for path in sorted(log_dir.glob(f"*/{OLD_FILES}")):
        path.unlink()
    for path in [*log_dir.glob("*/date=*/*.tmp"), log_dir / ".lock"]:
        path.unlink(missing_ok=True)
    return moved


def _upgrade(log: Log, topic: str, partition: int, paths: Sequence[Path]) -> Iterator[int]:
    """Write the files of a partition, in the order of offsets; last, how far they go."""
    start, end = _numbers(paths[0])[1], max(_numbers(path)[2] for path in paths) + 1
    table = created(log, topic)
    logged = next_offset(table, partition)
    if (first_offset(table, partition), logged) == (start, end):
        return  # a call before wrote them
    last: dict[str, int] = {}  # offset by date: a file has all of its date and offsets
    for path in paths if logged is None else ():
        day, until = path.parent.name.removeprefix("date="), _numbers(path)[2]
        after = last.get(day, -1)
        rows = _rows(topic, path).filter(pc.field("offset") > after)
        place = f"date = '{day}' AND partition = {partition}"
        place += f" AND offset > {after} AND offset <= {until}"
        with outages(log):
            write_deltalake(table, rows, mode="overwrite", predicate=place)
        last[day] = max(after, until)
        yield len(rows)
    taken = {partition: range(start, end)}
    if logged is not None or not append(table, table_of(topic, []), taken):
        raise ArtifactError(
            f"{log}/{topic} has rows that workers wrote: stop them, move it away and run "
            "this again. They read from Kafka again what it had"
        )


def _rows(topic: str, path: Path) -> pa.Table:
    try:
        rows = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtifactError(
            f"{path} is damaged: {error}. Put a backup of it there, or move it out of the "
            "raw log: then its events miss in training and rebuilds"
        ) from error
    # An older release's file may lack columns.
    return pa.concat_tables([table_of(topic, []), dated(rows)], promote_options="default")


def _numbers(path: Path) -> tuple[int, int, int]:
    partition, start, end = map(int, path.stem.split("-"))
    return partition, start, end
