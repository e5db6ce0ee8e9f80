"""What monitors that share partitions write for each other: files per partition.

In a folder that all of them have: the snapshot of a partition, from which the monitor that
takes it over resumes; its sums, more often and without the labels of the window, from which
one monitor adds up the figures of all; and its window, small enough for each to read.

A monitor that takes a partition claims the next *term*, which is in the names of its files.
The highest term counts: a process that was paused in a write changes nothing afterwards.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.errors import OutageError
from srp4ctr.monitoring.collector.snapshot import Snapshot, SnapshotFile
from srp4ctr.monitoring.quality.pending_labels import ProvisionalCounts

SUMS, SNAPSHOT = "sums", "snapshot"


class PartitionWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What other monitors need of a partition, but for its sums."""

    newest_ms: int = 0
    """When its newest settled impression was shown; 0 before the first."""
    complete_until_ms: int = 0
    """All labels that were published until then are in it."""
    provisional: dict[str, ProvisionalCounts] = {}
    """Its open impressions, by version."""


class PartitionFiles:
    """The files of all partitions, of monitors with these ``settings``."""

    def __init__(self, folder: Path, settings: Mapping[str, float]) -> None:
        self._folder, self._settings = folder, settings

    def claim(self, partition: int) -> int:
        """Return a term of the partition that no other monitor has.

        Raises ``OutageError`` while the folder takes no file.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._claimed(partition, self.term(partition) + 1)
        except OSError as error:
            raise OutageError(
                f"monitoring.shared_folder {self._folder}: {error}; every monitor must be "
                "able to write it"
            ) from error

    def _claimed(self, partition: int, term: int) -> int:
        while True:
            try:
                # Empty until the first write: until then, the former term's file counts.
                self.path(partition, term, SUMS).touch(exist_ok=False)
                return term
            except FileExistsError:  # another monitor was faster
                term += 1

    def term(self, partition: int) -> int:
        """Return the highest term of the partition; 0 without any."""
        return max(self._terms(partition, SUMS), default=0)

    def written(self, partition: int, kind: str) -> Path | None:
        """Return the newest file that was written; None without any."""
        for term in sorted(self._terms(partition, kind), reverse=True):
            path = self.path(partition, term, kind)
            try:
                if path.stat().st_size:
                    return path
            except FileNotFoundError:  # replaced by that of a higher term
                continue
        return None

    def write(self, partition: int, term: int, kind: str, snapshot: Snapshot) -> None:
        """Write the file of ``term``, and delete those of former ones."""
        SnapshotFile(self.path(partition, term, kind), self._settings).write(snapshot)
        for each in self._terms(partition, kind):
            if each < term:
                self.path(partition, each, kind).unlink(missing_ok=True)

    def read(self, path: Path) -> Snapshot | None:
        """Return the file's content; None if it cannot be used."""
        return SnapshotFile(path, self._settings).read()

    def write_window(self, partition: int, window: PartitionWindow) -> None:
        """Replace the partition's window."""
        write_json(self._window(partition), window)

    def window(self, partition: int) -> PartitionWindow:
        """Return the partition's window; an empty one without a file."""
        return read_json(self._window(partition), PartitionWindow) or PartitionWindow()

    def _window(self, partition: int) -> Path:
        return self._folder / f"{partition}.window.json"

    def path(self, partition: int, term: int, kind: str) -> Path:
        """Return the path of a file."""
        return self._folder / f"{partition}.{term}.{kind}"

    def _terms(self, partition: int, kind: str) -> list[int]:
        names = (path.name for path in self._folder.glob(f"{partition}.*.{kind}"))
        found = (re.fullmatch(rf"{partition}\.(\d+)\.{kind}", name) for name in names)
        return [int(each[1]) for each in found if each]
