"""Claim: no event is lost and none counts twice, whatever crashes.

Three stream workers on Apache Kafka and Valkey; everything is killed, frozen or taken away
in turn while events come in, late, twice and out of order, with poison between them. At
the end all that is stored and published is compared with a reference. Every fault begins
while all workers share the partitions and traffic goes on, and is over when they do so
again; the next one waits for that.

    make bench NAME=faults ARGS="--rounds 3"
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import parser_of
from benchmarks.fault_injection.cluster import Cluster, cluster
from benchmarks.fault_injection.progress import Progress, behind
from benchmarks.fault_injection.traffic import Shape, Traffic
from benchmarks.fault_injection.verdict import Published, Verdict, acknowledged, judge
from benchmarks.harness.figures import table
from srp4ctr.embedded import apache_kafka
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.worker.app import group_ids

PARTITIONS, WORKERS = 6, 3
BURST = 4000  # events at once: twice what a worker polls
_SETTLED_LAG = 400
_SETTLE_S = 240.0
_POLL_S = 0.1

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
    events: int
    poison: int
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
            f"{self.events:,} events, {self.poison} poison messages\n"
            f"wrong at the end: {', '.join(wrong)}"
        )

    def summary(self) -> dict[str, float]:
        """Return the figures that a benchmark ends with."""
        wrong = self.verdict.wrong()
        return {
            "faults": len(self.rows),
            "events": self.events,
            "poison": self.poison,
            "lost": wrong.pop("lost"),
            **{f"wrong_{name}": number for name, number in wrong.items()},
            "longest_stall_s": max(round(row.stall_s, 1) for row in self.rows),
        }


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where the faults happen."""

    cluster: Cluster
    traffic: Traffic
    progress: Progress
    lag: int = 0
    _next: int = 0

    def settle(self, workers: int = WORKERS) -> None:
        """Return when ``workers`` share the partitions and have caught up."""
        self.wait(
            lambda: self.progress.members == workers and self.progress.lag < _SETTLED_LAG,
            f"{workers} workers to catch up",
        )

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Return when ``condition`` holds; raises ``TimeoutError``."""
        deadline = time.monotonic() + _SETTLE_S
        while not condition():
            self.cluster.check_alive()
            if time.monotonic() > deadline:
                seen = f"{self.progress.members} members, {self.progress.lag} behind"
                raise TimeoutError(f"waited in vain for {what}: {seen}")
            time.sleep(_POLL_S)

    def strike(self) -> None:
        """Return in the middle of a burst that the workers have begun to store."""
        before = self.progress.stored
        self.wait(self._is_behind, "a burst to be more than the workers store at once")
        self.wait(lambda: self.progress.stored > before, "commit")
        self.lag = self.progress.lag

    def _is_behind(self) -> bool:
        if self.progress.lag < BURST / 10:
            self.traffic.burst(BURST)
            self.progress.wait_for_lag(BURST // 10, timeout_s=3.0)
        return self.progress.lag >= BURST / 10

    def a_worker(self) -> str:
        """Return a worker's name, each in turn."""
        self._next = (self._next + 1) % WORKERS
        return f"worker{self._next}"


def kill_a_worker(stage: Stage) -> None:
    """It restarts at once, under the same name."""
    name = stage.a_worker()
    stage.cluster.kill(name)
    stage.cluster.start_worker(int(name[-1]))
    stage.cluster.wait_ready(int(name[-1]))


def join(stage: Stage) -> None:
    """A fourth worker takes its share while traffic goes on."""
    stage.cluster.start_worker(WORKERS)
    stage.cluster.wait_ready(WORKERS)
    stage.settle(WORKERS + 1)


def terminate(stage: Stage) -> None:
    """The fourth worker is shut down as by a deployment."""
    stage.cluster.stop(f"worker{WORKERS}")


def restart_kafka(stage: Stage, end: Callable[[Cluster, str], None]) -> None:
    """Kafka ends and restarts with its data."""
    end(stage.cluster, "kafka")
    stage.cluster.start_kafka()


def restart_store(stage: Stage, away_s: float) -> None:
    """Valkey is killed; what it has acknowledged must still be there after the restart."""
    stage.cluster.kill("store")
    time.sleep(away_s)
    stage.cluster.start_store()


def hang_the_store(stage: Stage) -> None:
    """The store hangs past the client's timeout, then executes what it was sent."""
    stage.cluster.freeze("store")
    time.sleep(10)
    stage.cluster.thaw("store")


def freeze_a_worker(stage: Stage) -> None:
    """It hangs past its session, others take over, and then it continues, too."""
    name = stage.a_worker()
    stage.cluster.freeze(name)
    stage.wait(lambda: stage.progress.members == WORKERS - 1, "a rebalance")
    stage.traffic.burst(BURST)
    time.sleep(2)
    stage.cluster.thaw(name)


JOINS = "a worker joins"
FAULTS: dict[str, Callable[[Stage], None]] = {
    "kill -9 of a worker in mid-batch, and its restart": kill_a_worker,
    JOINS: join,
    "SIGTERM of a worker in mid-batch": terminate,
    "the broker restarts": partial(restart_kafka, end=Cluster.stop),
    "kill -9 of the store under load, and its restart": partial(restart_store, away_s=0),
    "the store is away for 10 s": partial(restart_store, away_s=10),
    "a worker frozen past its session goes on (zombie)": freeze_a_worker,
}
MORE_FAULTS: dict[str, Callable[[Stage], None]] = {
    **FAULTS,
    "kill -9 of the broker, and its restart": partial(restart_kafka, end=Cluster.kill),
    "the store hangs for 10 s": hang_the_store,
}


def run(folder: Path, shape: Shape, faults: Iterable[str], say: Say) -> Report:
    """Let ``faults`` happen under traffic of ``shape``; the names are ``MORE_FAULTS``'.

    Raises ``TimeoutError`` or ``ProcessError`` where the workers do not recover.
    """
    config = StreamConfig(  # labels mature while a person watches
        label_window_s=shape.window_s, correction_window_s=900.0, sequence_length=20
    )
    with cluster(folder, config, PARTITIONS) as whole:
        for number in range(WORKERS):
            whole.start_worker(number)
        whole.wait_ready(*range(WORKERS))
        group_id = whole.streams.group_id
        progress = Progress(whole.kafka, group_id, BEHAVIOR_EVENTS_TOPIC)
        traffic = Traffic(whole.kafka, shape)
        stage = Stage(cluster=whole, traffic=traffic, progress=progress)
        progress.start()
        traffic.start()
        try:
            rows = _play(stage, faults, say)
            traffic.end()
            say("the last labels mature")
            published = acknowledged(traffic.published)
            verdict = _verdict(whole, published)
        finally:
            traffic.end()
            progress.end()
    return Report(
        rows=rows,
        events=len(published.events),
        poison=len(published.poison),
        verdict=verdict,
    )


def _play(stage: Stage, faults: Iterable[str], say: Say) -> list[Row]:
    stage.settle()
    started, rows = time.monotonic(), []
    for fault in faults:
        stage.progress.take_longest_stall()
        stage.lag, at_s = 0, time.monotonic() - started
        say(fault)
        if fault != JOINS:
            stage.strike()
        MORE_FAULTS[fault](stage)
        stage.settle(WORKERS + (fault == JOINS))
        stall_s = stage.progress.take_longest_stall()
        rows.append(Row(fault=fault, at_s=at_s, lag=stage.lag, stall_s=stall_s))
    return rows


def _verdict(whole: Cluster, published: Published) -> Verdict:
    """Return the verdict when nothing is missing any more, or else after a while."""
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
        verdict = judge(whole, published)
        is_right = not any(verdict.wrong().values())
        if (is_right and not waits) or time.monotonic() > deadline:
            return verdict
        time.sleep(1.0)


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="of all faults")
    parser.add_argument("--short", action="store_true", help="the faults of the test")
    parser.add_argument("--keep", type=Path, help="a folder for logs and data")
    options = parser.parse_args()
    if missing := apache_kafka.missing_tools():
        sys.exit(f"Apache Kafka needs {', '.join(missing)}")
    faults = [*(FAULTS if options.short else MORE_FAULTS)] * options.rounds
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        report = run(options.keep or Path(folder), Shape(users=200), faults, say)
    print(report.table())
    if examples := report.verdict.examples():
        print(examples)
    print(json.dumps(report.summary()))


if __name__ == "__main__":
    main()
