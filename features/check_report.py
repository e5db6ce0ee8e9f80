"""What a check of the feature store found, and the file that tells the monitor of it."""

from pathlib import Path

import msgspec

from srp4ctr.features.whole_files import replace_text

REPORT_FILE = "feature-check.json"
"""In the log's folder: the newest report."""


class FeatureCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How sampled rows of the store differ from what the raw log makes of them."""

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
    behind_s: float = 0.0
    """Age of the oldest event of the sample that is in the log and not in the store."""
    details: tuple[str, ...] = ()
    """A sentence per wrong row, of the first few."""

    @property
    def wrong_rows(self) -> int:
        """Rows that are not what the log says."""
        return self.wrong_sequences + self.wrong_counters

    @property
    def wrong_share(self) -> float:
        """Wrong rows per row compared; 0 where there was nothing to compare."""
        return self.wrong_rows / max(self.rows, 1)


def write_report(log_dir: Path, check: FeatureCheck) -> Path:
    """Write ``check`` as JSON, whole or not at all, and return where."""
    log_dir.mkdir(parents=True, exist_ok=True)
    path = log_dir / REPORT_FILE
    text = msgspec.json.format(msgspec.json.encode(check).decode())
    replace_text(path, text + "\n")
    return path


def read_report(path: Path) -> FeatureCheck | None:
    """Return the report in ``path``; None where there is none, or another release's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FeatureCheck)
    except (OSError, msgspec.DecodeError):
        return None
