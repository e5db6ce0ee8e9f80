"""Claim: a row is in the raw log seconds after Kafka has it, once, while the log is tidied.

Three workers on Apache Kafka and Valkey, events at an even rate, and a process that joins
the log's small files and removes what it replaced all the time. Then hours of commits as
three workers make them, one after another: what a commit takes, and how the table's own
log grows. And what it takes to erase users, and to read all.

    make bench NAME=raw_log
"""

import json
import tempfile
import time
from pathlib import Path

from benchmarks import parser_of, say
from benchmarks.fault_injection.cluster import cluster
from benchmarks.harness.figures import table
from benchmarks.streaming.ingest_events import begin_ms, draw_events
from benchmarks.streaming.raw_log_freshness import in_the_log
from benchmarks.streaming.raw_log_measures import (
    Row,
    erase_users,
    make_commits,
    write_users,
)
from srp4ctr.streams.config import StreamConfig

PER_S, SECONDS, USERS = 10_000.0, 60.0, 1_000_000
HOURS = 3.0  # files that were joined stay for two: a later hour is like the third
PARTITIONS, WORKERS = 6, 3
LIVE = {
    "events/s": "per_s:,.0f",
    "p50 s": "freshness_p50_s:.2f",
    "p99 s": "freshness_p99_s:.2f",
    "rows": "rows:,",
    "lost": "lost",
    "wrong": "wrong",
}
COMMITS = {
    "hour": "hour",
    "commit p50 ms": "p50_ms:.1f",
    "p99 ms": "p99_ms:.1f",
    "CPU ms": "cpu_ms:.1f",
    "files": "files:,",
    "open ms": "open_ms:.0f",
    "checkpoint MB": "checkpoint_mb:.2f",
    "written MB": "written_mb:.1f",
}


def main() -> None:
    """Print tables, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--per-s", type=float, default=PER_S, help="events a second")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of live events")
    parser.add_argument("--hours", type=float, default=HOURS, help="of commits")
    parser.add_argument("--users", type=int, default=USERS, help="in the log erased from")
    options = parser.parse_args()
    found = live(options.per_s, options.seconds)
    with tempfile.TemporaryDirectory() as name:
        hours = []
        for row in make_commits(Path(name), options.hours, PARTITIONS, WORKERS):
            say(f"hour {row['hour']} of commits")
            hours.append(row)
        print(table(hours, COMMITS))
    with tempfile.TemporaryDirectory() as name:
        say(f"users to erase: a log of {options.users:,}")
        write_users(Path(name), options.users)
        found |= erase_users(Path(name))
    last = hours[-1]
    found |= {
        "commit_p50_ms": last["p50_ms"],
        "commit_p99_ms": last["p99_ms"],
        "metadata_mb_a_day": 24 * last["written_mb"] / min(1.0, options.hours),
        "hours": hours,
    }
    print(
        f"erase 100 of {options.users:,} users: {found['erased_mb']:.0f} MB of "
        f"{found['whole_mb']:.0f} rewritten, {found['erase_s']:.1f} s\n"
        f"read all, sorted by offset: {found['scan_rows_per_s']:,.0f} rows/s"
    )
    print(json.dumps(found))


def live(per_s: float, seconds: float) -> Row:
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
    print(table([row], LIVE))
    return row


if __name__ == "__main__":
    main()
