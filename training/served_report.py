"""What a check of served requests found: the file that tells the monitor. No torch."""

from pathlib import Path

import msgspec

from srp4ctr.features.whole_files import replace_text

REPORT_FILE = "served-check.json"
"""In the log's folder: the newest report."""


class ServedReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far the scores of served requests are from what training's features give."""

    checked_at_ms: int
    requests: int
    mean_shift: dict[str, float] = {}
    """By model version: mean |difference| of a probability."""


def write_report(log_dir: Path, report: ServedReport) -> None:
    """Write ``report`` as JSON, whole or not at all."""
    log_dir.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(report).decode())
    replace_text(log_dir / REPORT_FILE, text + "\n")


def read_report(path: Path) -> ServedReport | None:
    """Return the report in ``path``; None where there is none, or another release's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServedReport)
    except (OSError, msgspec.DecodeError):
        return None
