"""A raw log of a release before 0.3.0 → Delta Lake tables, in the same folder or elsewhere.

In: ``<topic>/date=YYYY-MM-DD/<partition>-<start>-<end>.parquet``, some of which may repeat
others' offsets after a crash. Out: the tables, with each offset once; the old files are
removed last. A call that was killed is made again: the tables say how far it came.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from srp4ctr.errors import ArtifactError
from srp4ctr.streams.raw_log.delta_tables import (
    LOGGED_TOPICS,
    OLD_FILES,
    Log,
    OffsetRange,
    append,
    created,
    next_offset,
)
from srp4ctr.streams.raw_log.log_tables import dated

_ROWS = 131_072  # of a commit, or those of one file


def upgrade(log_dir: Path, log: Log, progress: Callable[[int], None]) -> int:
    """Bring the old files in ``log_dir`` into ``log`` and return how many rows came.

    No worker may run. ``progress`` gets the number of rows of each commit. Raises
    ``ArtifactError`` for a damaged file.
    """
    moved = 0
    for topic in LOGGED_TOPICS:
        files: dict[int, list[Path]] = {}
        for path in (log_dir / topic).glob(OLD_FILES):
            files.setdefault(_numbers(path)[0], []).append(path)
        for partition, paths in sorted(files.items()):
            for rows in _upgrade(log, topic, partition, paths):
                progress(rows)
                moved += rows
    for path in sorted(log_dir.glob(f"*/{OLD_FILES}")):
        path.unlink()
    for path in [*log_dir.glob("*/date=*/*.tmp"), log_dir / ".lock"]:
        path.unlink(missing_ok=True)
    return moved


def _upgrade(log: Log, topic: str, partition: int, paths: Sequence[Path]) -> Iterator[int]:
    table = created(log, topic)
    for start, end, files in _commits(paths):
        logged = next_offset(table, partition)
        if logged is not None and end <= logged:
            continue  # of a call before
        taken = OffsetRange(start=start if logged is None else logged, end=end)
        rows = _rows(files)
        if not append(table, dated(rows), {partition: taken}):
            raise ArtifactError(f"{log}/{topic} is being written: stop the workers first")
        yield len(rows)


def _commits(paths: Sequence[Path]) -> Iterator[tuple[int, int, list[Path]]]:
    """Yield neighbours, as many as have the rows of a commit, and the offsets they cover.

    Files whose offsets overlap stay together: what one repeats or lacks, others have.
    """
    found: list[Path] = []
    first = after = rows = 0
    for path in sorted(paths, key=lambda path: (*_numbers(path), path)):
        _, start, end = _numbers(path)
        if found and start >= after and rows >= _ROWS:
            yield first, after, found
            found, rows = [], 0
        first = first if found else start
        after = max(after, end + 1)
        rows += _opened(path).metadata.num_rows
        found.append(path)
    if found:
        yield first, after, found


def _rows(files: Sequence[Path]) -> pa.Table:
    """Return the rows of ``files`` by offset, each once."""
    tables = []
    for path in files:
        with _opened(path) as file:
            try:
                tables.append(file.read())
            except (OSError, pa.ArrowInvalid) as error:
                raise _damaged(path, error) from error
    rows = pa.concat_tables(tables, promote_options="default")
    rows = rows.append_column("row", pa.array(range(len(rows))))
    kept = rows.group_by("offset").aggregate([("row", "max")]).sort_by("offset")
    return rows.take(kept["row_max"]).drop_columns("row")


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged: {error}. Put a backup of it there, or move it out of the raw "
        "log: then its events miss in training and rebuilds"
    )


def _numbers(path: Path) -> tuple[int, int, int]:
    partition, start, end = map(int, path.stem.split("-"))
    return partition, start, end
