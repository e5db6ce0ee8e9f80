"""Claim: one worker processes 10,000 events per second and core, readable in a second.

The worker is ``srp4ctr stream run`` as it is, raw log, counters and labels and all. Every
user has L behaviours before the clock starts. "A core" is by the CPU time of the process,
because broker, store and this program share the machine with it.

    make bench NAME=ingest
    make bench NAME=ingest ARGS="--broker noida --events 20000"
    make bench NAME=ingest ARGS="--workers 2 --events 200000"
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import parser_of, say
from benchmarks.harness.figures import table
from benchmarks.streaming.ingest_freshness import Freshness, freshness
from benchmarks.streaming.ingest_stack import (
    Memory,
    Rate,
    fill,
    publish,
    rate_of,
    running_stack,
)
from srp4ctr.testing.fault_injection.cluster import MAX_WORKERS
from srp4ctr.testing.ingest_events import begin_ms, draw_events

EVENTS, LIVE_S = 60_000, 20.0
LENGTHS = (50, 200)  # the first is the one that the bars are about


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """All that was measured with histories of one length."""

    length: int
    memory: Memory
    ours: Rate
    fresh: Freshness


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--events", type=int, default=EVENTS, help="of a load; few measure the start")
    add("--broker", choices=("kafka", "noida"), default="kafka")
    sharing = "how many share the first load; nothing else is measured"
    add("--workers", type=int, choices=range(1, MAX_WORKERS + 1), help=sharing)
    options = parser.parse_args()
    if options.workers:
        print(json.dumps(shared(options.workers, options.events, options.broker)))
        return
    outcomes = [measure(length, options.events, options.broker) for length in LENGTHS]
    rows = [row_of(outcome) for outcome in outcomes]
    print(table(rows, {name: f"{name}:,.0f" for name in rows[0]}))
    print(json.dumps(summary(outcomes, options.broker, options.events)))


def measure(length: int, num_events: int, broker: str) -> LoadResult:
    """Return what histories of ``length`` measure on a stack of their own."""
    start_ms = begin_ms()
    events = draw_events(num_events, seed=0, start_ms=start_ms)
    with running_stack(broker, length) as stack:
        _say(length, "fill and publish")
        memory = fill(stack, length, start_ms)
        publish(stack, events)
        _say(length, "ours")
        ours = rate_of(stack, [stack.start_worker(0)], len(events))
        per_s = ours.per_s / 2
        _say(length, f"freshness at {per_s:,.0f} events/s")
        live = draw_events(round(per_s * LIVE_S), seed=1, start_ms=start_ms)
        fresh = freshness(stack, live, per_s)
    return LoadResult(length=length, memory=memory, ours=ours, fresh=fresh)


def shared(workers: int, num_events: int, broker: str) -> dict[str, Any]:
    """Return the rate at which ``workers`` work off the first load together."""
    length, start_ms = LENGTHS[0], begin_ms()
    events = draw_events(num_events, seed=0, start_ms=start_ms)
    with running_stack(broker, length) as stack:
        fill(stack, length, start_ms)
        publish(stack, events)
        started = [stack.start_worker(number) for number in range(workers)]
        rate = rate_of(stack, started, len(events))
    return {"broker": broker, "workers": workers, "events": num_events} | asdict(rate)


def row_of(each: LoadResult) -> dict[str, float]:
    """Return a line of the table; of the two rates the second is per core."""
    return {
        "L": each.length,
        "events/s": each.ours.per_s,
        "events/core s": each.ours.per_core_s,
        "p50 ms": each.fresh.p50_ms,
        "p99 ms": each.fresh.p99_ms,
        "bytes/user": each.memory.key,
    }


def summary(outcomes: Sequence[LoadResult], broker: str, num_events: int) -> dict[str, Any]:
    """Return the figures of the first load, then of each; ``…_per_core_s`` is a core's."""
    first = outcomes[0]
    return {
        "broker": broker,
        "events": num_events,
        "events_per_s": round(first.ours.per_s),
        "events_per_core_s": round(first.ours.per_core_s),
        "bytes_per_user": {outcome.length: outcome.memory.key for outcome in outcomes},
        "freshness_p99_ms": round(first.fresh.p99_ms),
        "loads": [asdict(outcome) for outcome in outcomes],
    }


def _say(length: int, step: str) -> None:
    say(f"{time.strftime('%H:%M:%S')} L = {length}: {step}")


if __name__ == "__main__":
    main()
