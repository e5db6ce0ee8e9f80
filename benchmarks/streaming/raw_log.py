"""Claim: a row is in the raw log seconds after Kafka has it, once, while the log is tidied.

Three workers on Apache Kafka and Valkey, events at an even rate, and a process that joins
the log's small files and removes what it replaced all the time.

    make bench NAME=raw_log
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import parser_of, say
from benchmarks.harness.figures import table
from benchmarks.streaming.raw_log_freshness import in_the_log
from srp4ctr.streams.config import StreamConfig
from srp4ctr.testing.fault_injection.cluster import cluster
from srp4ctr.testing.ingest_events import begin_ms, draw_events

PER_S, SECONDS = 10_000.0, 60.0
PARTITIONS, WORKERS = 6, 3
LIVE = {
    "events/s": "per_s:,.0f",
    "p50 s": "freshness_p50_s:.2f",
    "p99 s": "freshness_p99_s:.2f",
    "rows": "rows:,",
    "lost": "lost",
    "wrong": "wrong",
}


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--per-s", type=float, default=PER_S, help="events a second")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of live events")
    options = parser.parse_args()
    found = live(options.per_s, options.seconds)
    print(table([found], LIVE))
    print(json.dumps(found))


def live(per_s: float, seconds: float) -> dict[str, Any]:
    """Measure workers that write the log while it is read and tidied."""
    events = draw_events(int(per_s * seconds), seed=1, start_ms=begin_ms())
    with (
        tempfile.TemporaryDirectory() as name,
        cluster(Path(name), StreamConfig(), PARTITIONS) as stack,
    ):
        workers = range(WORKERS)
        for number in workers:
            stack.start_worker(number)
        stack.wait_ready(*workers)
        say(f"{len(events):,} events at {per_s:,.0f} a second")
        began = time.monotonic()
        row = in_the_log(stack, events, per_s)
        say(f"all logged after {time.monotonic() - began:.0f} s")
    return row


if __name__ == "__main__":
    main()
