"""The report of a check of the feature store, which the monitor reads from a file."""

import msgspec

REPORT_FILE = "feature-check.json"
"""In the log's folder: the newest report."""


class FeatureCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How sampled rows of the store differ from their recomputation from the raw log."""

    checked_at_ms: int
    rows: int
    """Compared: sequences, exposures and counters of users, and counters of items in a
    partition."""
    wrong_sequences: int = 0
    """Of behaviours or of exposures."""
    edits: int = 0
    """Behaviours or exposures to insert, remove or replace to make those right."""
    wrong_counters: int = 0
    largest_difference: float = 0.0
    """Of a decayed count, in events."""
    waiting: int = 0
    """Sampled rows that have seen events which the log does not hold yet: not compared."""
    partitions_left_out: int = 0
    """Partitions of which the log does not hold the beginning: not compared."""
    skipped_offsets: int = 0
    """Offsets that Kafka dropped before the log had them; the store may lack them, too."""
    behind_s: float = 0.0
    """Age of the oldest event of the sample that is in the log and not in the store."""
    details: tuple[str, ...] = ()
    """A sentence per wrong row, of the first few."""

    @property
    def wrong_rows(self) -> int:
        """Rows that differ from the log."""
        return self.wrong_sequences + self.wrong_counters

    @property
    def wrong_share(self) -> float:
        """Wrong rows per row compared; 0 where there was nothing to compare."""
        return self.wrong_rows / max(self.rows, 1)
