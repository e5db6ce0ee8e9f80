"""Lets faults happen to a cluster under traffic, and compares the outcome with a reference.

Three stream workers run on Apache Kafka and Valkey. Every fault begins while all workers
share the partitions and traffic continues; it is over when they do so again. The raw log's
files are joined, and the old ones removed, all the time.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.worker.app import group_ids
from srp4ctr.testing.fault_injection.cluster import Cluster, cluster
from srp4ctr.testing.fault_injection.faults import ALL, JOINS, WORKERS, Stage
from srp4ctr.testing.fault_injection.progress import Progress, behind
from srp4ctr.testing.fault_injection.tidying import Tidying
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from srp4ctr.testing.fault_injection.traffic import Shape, Traffic
from srp4ctr.testing.fault_injection.verdict import (
    Published,
    Verdict,
    judge,
    published_to,
)

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

    def __str__(self) -> str:
        """Return a line per fault, and the verdict."""
        lines = [
            f"{row.at_s:7.1f} s  {row.lag:6,} records behind  "
            f"{row.stall_s:5.1f} s stalled  {row.fault}"
            for row in self.rows
        ]
        wrong = (f"{name} {number}" for name, number in self.verdict.wrong().items())
        lines += [
            f"{self.events:,} events, {self.poison} poison messages; {self.dropped:,} "
            "events that Kafka dropped unread",
            f"the raw log was tidied {self.tidying.rounds} times: {self.tidying.merged:,} "
            f"files joined, {self.tidying.refused} calls refused",
            f"wrong at the end: {', '.join(wrong)}",
        ]
        return "\n".join(lines)

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
    # A producer that waits for nothing must not leave the thread that samples.
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
