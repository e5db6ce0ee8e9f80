"""Claim: one worker processes 10,000 events per second and core, readable in a second.

The worker is ``srp4ctr stream run`` as it is, raw log, counters and labels and all. On
the same events: a naive pipeline (Faust and one ``store.push`` per event) and the bounds,
only to read and decode and only to write rows. Every user has L behaviours
before the clock starts. "A core" is by the CPU time of the process, for broker, store and
this program share the machine with it.

    make bench NAME=ingest
    make bench NAME=ingest ARGS="--broker noida --events 20000"
    make bench NAME=ingest ARGS="--workers 2 --events 200000"
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import parser_of
from benchmarks.fault_injection.cluster import MAX_WORKERS
from benchmarks.streaming.ingest_bounds import reading_rate, writing_rate
from benchmarks.streaming.ingest_events import Load, begin_ms, draw_events
from benchmarks.streaming.ingest_freshness import Freshness, freshness
from benchmarks.streaming.ingest_naive import naive_rate
from benchmarks.streaming.ingest_stack import (
    Memory,
    Rate,
    fill,
    publish,
    rate_of,
    running_stack,
)

EVENTS = 60_000
NAIVE_EVENTS = 2_000
LIVE_S = 20.0
# The first is the one that the bars are about. With only behaviours every event changes
# a sequence, so that a row written is an event: what the store's bound compares with.
LOADS = (
    Load(users="uniform", length=50),
    Load(users="zipf", length=50),
    Load(users="uniform", length=200),
    Load(users="zipf", length=200),
    Load(users="uniform", length=50, mixed=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """All that was measured of one load."""

    load: Load
    memory: Memory
    writing: Rate
    reading: Rate
    naive: Rate | None
    """Only of the mix by uniform users: a push takes as long for any user."""
    ours: Rate
    fresh: Freshness | None
    """Only of the mix."""


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--events", type=int, default=EVENTS, help="of a load; few measure the start"
    )
    parser.add_argument("--broker", choices=("kafka", "noida"), default="kafka")
    parser.add_argument(
        "--workers",
        type=int,
        choices=range(1, MAX_WORKERS + 1),
        help="how many share the first load; nothing else is measured",
    )
    options = parser.parse_args()
    if options.workers:
        print(json.dumps(shared(options.workers, options.events, options.broker)))
        return
    outcomes = [measure(load, options.events, options.broker) for load in LOADS]
    print_table(outcomes)
    print(json.dumps(summary(outcomes, options.broker, options.events)))


def measure(load: Load, num_events: int, broker: str) -> LoadResult:
    """Return what ``load`` measures on a stack of its own."""
    start_ms = begin_ms()
    events = draw_events(load, num_events, seed=0, start_ms=start_ms)
    naive = fresh = None
    with running_stack(broker, load.length) as stack:
        _say(load, "fill and publish")
        memory = fill(stack, load, start_ms)
        writing = writing_rate(stack, load, start_ms)
        publish(stack, events)
        reading = reading_rate(stack, len(events))
        if load.mixed and load.users == "uniform":
            _say(load, "naive")
            pushed = min(NAIVE_EVENTS, len(events))
            naive = naive_rate(stack, load.length, pushed, start_ms)
        _say(load, "ours")
        ours = rate_of(stack, [stack.start_worker(0)], len(events))
        if load.mixed:
            per_s = ours.per_s / 2
            _say(load, f"freshness at {per_s:,.0f} events/s")
            live = draw_events(load, round(per_s * LIVE_S), seed=1, start_ms=start_ms)
            fresh = freshness(stack, live, per_s)
    return LoadResult(
        load=load,
        memory=memory,
        writing=writing,
        reading=reading,
        naive=naive,
        ours=ours,
        fresh=fresh,
    )


def shared(workers: int, num_events: int, broker: str) -> dict[str, Any]:
    """Return the rate at which ``workers`` work off the first load together."""
    load, start_ms = LOADS[0], begin_ms()
    events = draw_events(load, num_events, seed=0, start_ms=start_ms)
    with running_stack(broker, load.length) as stack:
        fill(stack, load, start_ms)
        publish(stack, events)
        started = [stack.start_worker(number) for number in range(workers)]
        rate = rate_of(stack, started, len(events))
    return {"broker": broker, "workers": workers, "events": num_events} | asdict(rate)


def print_table(outcomes: Sequence[LoadResult]) -> None:
    """Print a line per load; of two rates the second is per core."""
    columns = (
        f"{'users':<8}{'L':>4} {'events':<10}",
        *(f"{name:>16}" for name in ("ours/s, a core", "naive/s, a core", "× naive")),
        *(f"{name:>18}" for name in ("bound/s, a core", "rows/s, a core")),
        f"{'of the bound':>16}{'p50, p99 ms':>14}{'bytes/user':>12}",
    )
    print("".join(columns))
    for each in outcomes:
        load, fresh = each.load, each.fresh
        times = each.naive and each.ours.over(each.naive)
        columns = (
            f"{load.users:<8}{load.length:>4} {_kind(load):<10}",
            *(f"{_pair(rate):>16}" for rate in (each.ours, each.naive, times)),
            *(f"{_pair(rate):>18}" for rate in (each.reading, each.writing)),
            f"{_pair(each.ours.over(each.reading), '.0%'):>16}",
            f"{f'{fresh.p50_ms:.0f}, {fresh.p99_ms:.0f}' if fresh else '–':>14}",
            f"{each.memory.key:>12,.0f}",
        )
        print("".join(columns))


def summary(outcomes: Sequence[LoadResult], broker: str, num_events: int) -> dict[str, Any]:
    """Return the figures of the first load, then of each; ``…_per_core_s`` is a core's."""
    first = outcomes[0]
    assert first.naive is not None
    assert first.fresh is not None
    return {
        "broker": broker,
        "events": num_events,
        "events_per_s": round(first.ours.per_s),
        "events_per_core_s": round(first.ours.per_core_s),
        "naive_events_per_s": round(first.naive.per_s, 1),
        "naive_events_per_core_s": round(first.naive.per_core_s, 1),
        "bound_events_per_s": round(first.reading.per_s),
        "bound_events_per_core_s": round(first.reading.per_core_s),
        "bytes_per_user": {each.load.length: each.memory.key for each in outcomes},
        "freshness_p99_ms": round(first.fresh.p99_ms),
        "loads": [asdict(each) for each in outcomes],
    }


def _pair(rate: Rate | None, form: str = ",.0f") -> str:
    return f"{rate.per_s:{form}}, {rate.per_core_s:{form}}" if rate else "–"


def _say(load: Load, step: str) -> None:
    what = f"{load.users} users, L = {load.length}, {_kind(load)}"
    print(f"{time.strftime('%H:%M:%S')} {what}: {step}", file=sys.stderr, flush=True)


def _kind(load: Load) -> str:
    return "mix" if load.mixed else "behaviours"


if __name__ == "__main__":
    main()
