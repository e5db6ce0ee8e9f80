"""Claim: the whole stack, half loaded, loses nothing in an hour of faults, nor grows.

Broker, store, two stream workers, Triton, two monitors; visitors, whose histories are full,
request rankings and publish what they then do. First they come as fast as they are served:
that is what the machine can do with all of it. Then half as many come, while in turn a
worker, a serving process, the store and a monitor are killed, Kafka is stopped and
started, bundles are promoted and rolled back. At the end what is kept is compared with what
was sent.

    make bench NAME=soak ARGS="--hours 1 --keep /tmp/soak"
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks import parser_of, say
from benchmarks.harness.callers import Callers
from benchmarks.harness.figures import table
from benchmarks.operations.soak_figures import (
    Growth,
    Kept,
    Memory,
    NativeCalls,
    kept,
)
from benchmarks.operations.soak_stack import SERVING_KILLED, Soaked, soaked
from benchmarks.operations.soak_traffic import (
    Seen,
    Visit,
    read_notes,
    taken,
    visiting,
)
from srp4ctr.embedded import apache_kafka
from srp4ctr.errors import OutageError
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.testing.fault_injection.progress import behind

CALIBRATION, SOAK = "c", "s"
ENDED = "a worker ended of itself"  # published in results
_SAMPLE_EVERY_S, _SAY_EVERY_S, _AT_REST_S = 10.0, 60.0, 300.0
MEMORY_COLUMNS = {
    "process": "name",
    "lives": "lives",
    "MB warm": "first_mb:.0f",
    "MB last": "last_mb:.0f",
    "growth": "mb:.1f",
}
Row = dict[str, Any]


def main() -> None:
    """Print a table, then one JSON object."""
    options = _arguments()
    if missing := apache_kafka.missing_tools():
        sys.exit(f"Apache Kafka needs {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as name:
        folder = (options.keep or Path(name)).resolve()
        with soaked(folder / "data") as stack:
            figures = soak(stack, folder, options)
    print(json.dumps(figures))


def soak(stack: Soaked, folder: Path, options: argparse.Namespace) -> Row:
    """Measure what the stack can do, then run it at half of that; return the figures."""
    kafka, notes = stack.settings.kafka, folder / "visits"
    visit = Visit(address=stack.triton.grpc, kafka=kafka, notes=notes)
    _wait_until_folded(stack)
    best_per_s = _best(stack, visit, options.calibrate_s)
    _say(f"{best_per_s:.1f} visits a second at best: now half of that")
    memory = Memory(stack.folder, min(options.warm_up_s, options.hours * 900.0))
    native = NativeCalls()
    visitors = visiting(visit, SOAK, best_per_s / 2)
    began, began_at_s = time.monotonic(), time.time()
    try:
        struck = _run(stack, visitors, (memory, native), options)
    finally:
        visitors.stop()
    lasted_s = time.monotonic() - began
    _wait_until_at_rest(stack)
    seen, found = read_notes(visit.notes, SOAK), kept(stack.settings)
    sent = read_notes(visit.notes).events + stack.past_events
    growth = _print(memory.growths(), struck, found)
    return {
        "hours": round(lasted_s / 3600.0, 3),
        **_kept(found, sent),
        **_requests(seen),
        **native.figures(),
        "rss_growth_mb": max((each["mb"] for each in growth), default=0.0),
        "broker": "kafka",
        "best_visits_per_s": round(best_per_s, 1),
        "visits_per_s": round(seen.requests / lasted_s, 1),
        **_crashes(struck, stack.serving_crashes()),
        "growth": growth,
        "struck": struck,
        **_failures(seen, began_at_s),
    }


def _failures(seen: Seen, began_at_s: float) -> Row:
    """Return the errors of requests, and how long after the beginning they came."""
    at_s = [round(each - began_at_s) for each in seen.failed_at_s]
    return {"errors": seen.errors, "failed_at_s": at_s}


def _kept(found: Kept, sent: int) -> Row:
    """Return what was lost of the events that were ``sent``, and what is kept wrongly."""
    return {
        "events": sent,
        "lost": sent - found.events,
        "logged_twice": found.logged_twice,
        "unlabelled": found.impressions - found.labelled,
        "rows_compared": found.rows,
        "wrong_rows": found.wrong_rows,
    }


def _crashes(struck: Sequence[Row], serving: int) -> Row:
    """Return how many faults there were, and what crashed without one."""
    done = Counter(row["fault"] for row in struck)
    return {
        "faults": done.total() - done[ENDED],
        "serving_died": serving - done[SERVING_KILLED],
        "workers_ended": done[ENDED],
    }


def _best(stack: Soaked, visit: Visit, seconds: float) -> float:
    """Return the visits per second that are served *and* processed by the workers."""
    _say(f"as fast as it goes, {seconds:.0f} s")
    visitors = visiting(visit, CALIBRATION, None)
    began = time.monotonic()
    time.sleep(seconds)
    visitors.stop()
    _wait_until_folded(stack)
    return read_notes(visit.notes, CALIBRATION).requests / (time.monotonic() - began)


def _run(
    stack: Soaked,
    visitors: Callers,
    sampled: tuple[Memory, NativeCalls],
    options: argparse.Namespace,
) -> list[Row]:
    """Strike with one fault after another until the time is over; return what was done."""
    notes = stack.folder.parent / "visits"
    memory, native = sampled
    began = time.monotonic()
    turns, struck = cycle(stack.faults().items()), list[Row]()
    ends = began + options.hours * 3600.0
    next_fault, next_word = began + options.fault_every_s, began + _SAY_EVERY_S
    while (now := time.monotonic()) < ends:
        visitors.check_alive()
        stack.check_alive()
        if ended := stack.revive():
            row = {"fault": ENDED, "at_s": round(now - began), "took_s": 0.0}
            struck += [row] * ended
            _say(f"{ended} workers had ended and are started again")
        memory.sample(now - began)
        with suppress(OutageError):  # serving has been killed
            native.sample(read_metrics(stack.triton.metrics_url))
        if now >= next_fault:
            name, strike = next(turns)
            strike()
            took_s = round(time.monotonic() - now, 1)
            struck.append({"fault": name, "at_s": round(now - began), "took_s": took_s})
            _say(f"{(now - began) / 60:.1f} min: {name}, {took_s} s until it was over")
            next_fault = time.monotonic() + options.fault_every_s
        if now >= next_word:
            line = _requests(read_notes(notes, SOAK)) | {"minutes": (now - began) / 60}
            _say(", ".join(f"{key} {value:.6g}" for key, value in line.items()))
            next_word += _SAY_EVERY_S
        time.sleep(max(0.0, now + _SAMPLE_EVERY_S - time.monotonic()))
    return struck


def _wait_until_at_rest(stack: Soaked) -> None:
    """Return when all is read, and what then still matured: labels come late."""
    streams = stack.settings.streams
    topics = {
        streams.group_id: (BEHAVIOR_EVENTS_TOPIC,),
        streams.log_group_id: (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC),
    }
    for pause_s in (0.0, 3.0 * streams.label_window_s):
        time.sleep(pause_s)
        _wait_until_read(stack, topics)


def _wait_until_folded(stack: Soaked) -> None:
    _wait_until_read(stack, {stack.settings.streams.group_id: (BEHAVIOR_EVENTS_TOPIC,)})


def _wait_until_read(stack: Soaked, topics: Mapping[str, Sequence[str]]) -> None:
    deadline = time.monotonic() + _AT_REST_S
    while left := behind(stack.settings.kafka, topics):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{left:,} records are not read after {_AT_REST_S:.0f} s")
        stack.revive()
        time.sleep(0.2)


def _requests(seen: Seen) -> Row:
    return {"requests": seen.requests, "failed": seen.failed, **taken(seen.latencies_ms)}


def _print(growths: Sequence[Growth], struck: Sequence[Row], found: Kept) -> list[Row]:
    """Print tables; return the rows of memory."""
    grown = [asdict(growth) | {"mb": round(growth.mb, 1)} for growth in growths]
    print(table(grown, MEMORY_COLUMNS), end="\n\n")
    print(table(struck, {"fault": "fault", "at s": "at_s", "took s": "took_s"}), end="\n\n")
    print(
        f"{found.events:,} events, {found.labelled:,} of {found.impressions:,} impressions "
        f"labelled; {found.wrong_rows} of {found.rows:,} rows wrong"
    )
    return grown


def _say(what: str) -> None:
    say(f"{time.strftime('%H:%M:%S')} {what}")


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--hours", type=float, default=1.0)
    add("--minutes", type=float, help="instead of hours")
    add("--fault-every-s", type=float, default=180.0)
    add("--calibrate-s", type=float, default=30.0, help="as fast as it goes")
    add("--warm-up-s", type=float, default=300.0, help="of a process, for its memory")
    add("--keep", type=Path, help="a folder for data, logs and notes")
    options = parser.parse_args()
    if options.minutes:
        options.hours = options.minutes / 60.0
    return options


if __name__ == "__main__":
    main()
