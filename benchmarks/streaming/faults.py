"""Claim: no event is lost and none counts twice, whatever crashes.

Three stream workers on Apache Kafka and Valkey; everything is killed, frozen or taken away
in turn while events come in, late, twice and out of order, with poison between them. At
the end all that is stored and published is compared with a reference. Every fault begins
while all workers share the partitions and traffic goes on, and is over when they do so
again; the next one waits for that. The raw log's files are joined, and the old ones
removed, all the time.

With ``--s3`` the raw log is in a bucket, whose server (versitygw) fails as well.

    make bench NAME=faults ARGS="--rounds 3"
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import parser_of
from benchmarks.fault_injection.cluster import Cluster, cluster
from benchmarks.fault_injection.faults import (
    ALL,
    BUCKET_FAULTS,
    FAULTS,
    JOINS,
    MORE_FAULTS,
    WORKERS,
    Stage,
)
from benchmarks.fault_injection.progress import Progress, behind
from benchmarks.fault_injection.tidying import Tidying
from benchmarks.fault_injection.topic_reading import read_topic
from benchmarks.fault_injection.traffic import Shape, Traffic
from benchmarks.fault_injection.verdict import Published, Verdict, judge, published_to
from benchmarks.harness.figures import table
from srp4ctr.embedded import apache_kafka
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.worker.app import group_ids

PARTITIONS = 6

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a fault, when it began, and what it did to commits."""

    fault: str
    at_s: float
    lag: int
    """Records that were published and not committed when it struck."""
    stall_s: float
    """The longest time in which a partition with a lag saw no commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to."""

    rows: list[Row]
    dropped: int
    """Events that Kafka dropped before a worker could read them."""
    events: int
    poison: int
    tidying: Tidying
    verdict: Verdict

    def table(self) -> str:
        """Return the rows and the verdict for a person."""
        heads = {
            "fault": "fault",
            "at s": "at_s:.1f",
            "lag": "lag",
            "stall s": "stall_s:.1f",
        }
        wrong = (f"{name} {number}" for name, number in self.verdict.wrong().items())
        return (
            f"{table(map(asdict, self.rows), heads)}\n"
            f"{self.events:,} events, {self.poison} poison messages; {self.dropped:,} "
            "events that Kafka dropped unread\n"
            f"the raw log was tidied {self.tidying.rounds} times: {self.tidying.merged:,} "
            f"files joined, {self.tidying.refused} calls refused\n"
            f"wrong at the end: {', '.join(wrong)}"
        )

    def summary(self) -> dict[str, float]:
        """Return the figures that a benchmark ends with."""
        wrong = self.verdict.wrong()
        return {
            "faults": len(self.rows),
            "events": self.events,
            "poison": self.poison,
            "joined_files": self.tidying.merged,
            "dropped_unread": self.dropped,
            "lost": wrong.pop("lost"),
            **{f"wrong_{name}": number for name, number in wrong.items()},
            "longest_stall_s": max(round(row.stall_s, 1) for row in self.rows),
        }


def run(
    folder: Path, shape: Shape, faults: Iterable[str], say: Say, *, in_bucket: bool = False
) -> Report:
    """Let ``faults`` happen under traffic of ``shape``; the names are ``ALL``'s.

    Raises ``TimeoutError`` or ``ProcessError`` where the workers do not recover.
    """
    config = StreamConfig(  # labels mature while a person watches
        label_window_s=shape.window_s, correction_window_s=900.0, sequence_length=20
    )
    with cluster(folder, config, PARTITIONS, in_bucket=in_bucket) as whole:
        for number in range(WORKERS):
            whole.start_worker(number)
        whole.wait_ready(*range(WORKERS))
        with _traffic(whole, shape) as stage:
            tidying = Tidying(whole.features.raw_log, PARTITIONS)
            tidying.start()
            try:
                rows = _play(stage, faults, say)
                stage.traffic.end()
            finally:
                tidying.end()
            say("the last labels mature")
            records = {(r.topic, r.partition, r.offset): r for r in stage.dropped}
            for topic in (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC):
                for r in read_topic(whole.kafka, topic):
                    records[r.topic, r.partition, r.offset] = r
            found = published_to(records.values(), stage.traffic.published)
            published = found.without(stage.unread)
            verdict = _verdict(stage, published)
    return Report(
        rows=rows,
        dropped=len(found.events) - len(published.events),
        events=len(published.events),
        poison=len(published.poison),
        tidying=tidying,
        verdict=verdict,
    )


@contextmanager
def _traffic(whole: Cluster, shape: Shape) -> Iterator[Stage]:
    progress = Progress(whole.kafka, whole.streams.group_id, BEHAVIOR_EVENTS_TOPIC)
    traffic = Traffic(whole.kafka, shape)
    # A producer that waits in vain must not leave the thread that samples.
    with ExitStack() as ends:
        progress.start()
        ends.callback(progress.end)
        traffic.start()
        ends.callback(traffic.end)
        yield Stage(cluster=whole, traffic=traffic, progress=progress)


def _play(stage: Stage, faults: Iterable[str], say: Say) -> list[Row]:
    stage.settle()
    started, rows = time.monotonic(), []
    for fault in faults:
        stage.progress.take_longest_stall()
        stage.lag, at_s = 0, time.monotonic() - started
        say(fault)
        if fault != JOINS:
            stage.strike()
        ALL[fault](stage)
        stage.settle(WORKERS + (fault == JOINS))
        stall_s = stage.progress.take_longest_stall()
        rows.append(Row(fault=fault, at_s=at_s, lag=stage.lag, stall_s=stall_s))
    return rows


def _verdict(stage: Stage, published: Published) -> Verdict:
    """Return the verdict when nothing is missing any more, or else after a while."""
    whole = stage.cluster
    sequences, log, items = group_ids(whole.streams)
    topics_of = {
        sequences: [BEHAVIOR_EVENTS_TOPIC],
        log: [BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC],
        items: [ITEMS_TOPIC],
    }
    deadline = time.monotonic() + 30 + 3 * whole.streams.label_window_s
    while True:
        whole.check_alive()
        waits = behind(whole.kafka, topics_of) > 0
        verdict = judge(whole, published, stage.dropped)
        is_right = not any(verdict.wrong().values())
        if (is_right and not waits) or time.monotonic() > deadline:
            return verdict
        time.sleep(1.0)


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="of all faults")
    parser.add_argument("--short", action="store_true", help="the faults of the test")
    parser.add_argument("--s3", action="store_true", help="with the raw log in a bucket")
    parser.add_argument("--keep", type=Path, help="a folder for logs and data")
    options = parser.parse_args()
    if missing := apache_kafka.missing_tools():
        sys.exit(f"Apache Kafka needs {', '.join(missing)}")
    faults = [*(FAULTS if options.short else MORE_FAULTS)]
    faults = (faults + [*BUCKET_FAULTS] * options.s3) * options.rounds
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        place, shape = options.keep or Path(folder), Shape(users=200)
        report = run(place, shape, faults, say, in_bucket=options.s3)
    print(report.table())
    if examples := report.verdict.examples():
        print(examples)
    print(json.dumps(report.summary()))


if __name__ == "__main__":
    main()
