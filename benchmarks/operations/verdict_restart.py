"""How long a restarted monitor takes until its figures are current.

Labels whose times span 90 days are in Apache Kafka. A monitor reads those that matter and
is killed; labels are published while it is away. Then the time from the start of its
process is measured until its figures have all of them. ``verdicts`` calls this, too.

    python -m benchmarks.operations.verdict_restart
"""

import json
import tempfile
import time
from pathlib import Path

from benchmarks import parser_of, say
from benchmarks.operations.running_monitors import (
    label_topic,
    publish_labels,
    running_monitors,
    sources_of,
)
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.monitoring.config import MonitorConfig

LABELS = 5_000_000
SPAN_MS = 90 * 24 * 3_600_000
WHILE_AWAY = 10_000  # labels
PARTITIONS = 4
TIMEOUT_S = 1800.0
_POLL_S = 0.05


def main() -> None:
    """Print one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--labels", type=int, default=LABELS)
    options = parser.parse_args()
    print(json.dumps(measure(options.labels)))


def measure(count: int) -> dict[str, float]:
    """Return the seconds of a first start and of a restart, with ``count`` labels."""
    with tempfile.TemporaryDirectory(prefix="srp4ctr-restart-") as name:
        folder = Path(name)
        with label_topic(folder, PARTITIONS) as kafka:
            end_ms = round(time.time() * 1000) - 60_000
            say(f"publishing {count:,} labels")
            publish_labels(kafka, count, end_ms - SPAN_MS, end_ms)
            sources = sources_of(kafka, folder)
            say("the first start, without a snapshot")
            first_s = _seconds_until_current(sources)
            say(f"{first_s:.1f} s; {WHILE_AWAY:,} labels come while it is away")
            publish_labels(kafka, WHILE_AWAY, end_ms, end_ms + 60_000)
            assert sources.snapshot is not None
            return {
                "restart_s": round(_seconds_until_current(sources), 2),
                "first_start_s": round(first_s, 2),
                "snapshot_mb": round(sources.snapshot.stat().st_size / 1e6, 2),
            }


def _seconds_until_current(sources: MonitorSources) -> float:
    """Return how long a new process takes; it is killed when its snapshot is written."""
    began_s = time.time()
    with running_monitors(sources, [MonitorConfig(snapshot_interval_s=2.0)]) as (monitor,):
        while (until_s := monitor.current_until_s()) < began_s:
            if time.time() > began_s + TIMEOUT_S:
                raise TimeoutError(f"figures are of {until_s}, begun at {began_s}")
            time.sleep(_POLL_S)
        seconds, written = time.time() - began_s, sources.snapshot
        assert written is not None
        now_s = time.time()
        while not written.exists() or written.stat().st_mtime < now_s:
            time.sleep(_POLL_S)
        return seconds


if __name__ == "__main__":
    main()
