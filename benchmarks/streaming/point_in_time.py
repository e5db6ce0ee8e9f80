"""Claim: of ten million events, 100,000 examples are cut within a minute, on two cores.

A synthetic raw log (slates of ten, clicks, other behaviours; Zipf items, some users busier
than others, late arrivals, duplicates) is written by a process of its own. Then all that a
refresh reads is cut from it at L = 50; memory is that of the cutting process at its peak.

    make bench NAME=point_in_time ARGS="--events 1000000 --labels 10000"
"""

import contextlib
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks import parser_of
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import append, created, next_offset
from srp4ctr.streams.raw_log.log_tables import dated, schema_of

LENGTH, TTL_DAYS = 50, 90.0
SLATE = 10
USERS, ITEMS, PARTITIONS, DAYS = 20_000, 50_000, 4, 30
START_MS, DAY_MS = 1_700_006_400_000, 86_400_000  # a midnight in November 2023
END_MS = START_MS + DAYS * DAY_MS
CLICK_RATE, BEHAVIOR_SHARE, LATE_SHARE, DUPLICATES = 0.08, 0.2, 0.01, 0.005
ACTIONS = ("view", "view", "view", "cart", "favourite", "buy")
IMPRESSION, CLICK, BEHAVIOR = 0, 1, 2
KINDS = ("impression", "click", "behavior")
T = TypeVar("T")


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--labels", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"writing a log of {options.events:,} events", file=sys.stderr)
        writer = multiprocessing.get_context("spawn").Process(
            target=write_world, args=(Path(folder), options.events, options.labels)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            sys.exit("the log could not be written")
        result = measure(Path(folder))
    print(json.dumps(result))


def measure(log_dir: Path) -> dict[str, float]:
    """Cut the log in ``log_dir``, print a line per stage, and return what it took."""
    took: list[float] = []

    def timed(stage: str, cut: Callable[[], T], rows: Callable[[T], int]) -> T:
        print(f"{stage} …", file=sys.stderr)
        started, cpu = time.perf_counter(), time.process_time()
        result = cut()
        took.append(time.perf_counter() - started)
        cpu = time.process_time() - cpu
        print(f"{stage:<42} {rows(result):>10,} {took[-1]:>8.1f} {cpu:>8.1f}")
        return result

    print(f"{'':<42} {'rows':>10} {'seconds':>8} {'of CPU':>8}")
    with contextlib.ExitStack() as stack:
        log = timed(
            "open: ids to keys",
            lambda: stack.enter_context(event_tables.opened(log_dir)),
            lambda log: log.rows(log.events.count()).as_py(),
        )
        found = timed(
            "examples: sequences, counters, labels",
            lambda: point_in_time.snapshot(log, LENGTH, TTL_DAYS),
            lambda found: len(found.candidate_clicked),
        )
        timed(
            "histories for pre-training",
            lambda: point_in_time.histories(log, END_MS),
            lambda past: int(past.starts[-1]),
        )
        timed(
            "counts for the vocabulary", lambda: point_in_time.item_counts(log, END_MS), len
        )
        events = log.rows(log.events.count()).as_py()
    labels = len(found.candidate_clicked)
    seconds = round(sum(took), 1)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(f"{'in all':<42} {'':>10} {seconds:>8}   {peak:,} MB at the peak")
    return {"events": events, "labels": labels, "seconds": seconds, "peak_rss_mb": peak}


def write_world(log_dir: Path, num_events: int, num_labels: int) -> None:
    """Write the raw log of ``num_events`` and of ``num_labels`` matured labels."""
    rng = np.random.default_rng(0)
    events = draw_events(rng, num_events)
    events["partition"] = events["user"] % PARTITIONS
    events = events.sort_values(["partition", "created"], kind="stable")
    events["offset"] = events.groupby("partition").cumcount()
    for (partition, _), rows in events.groupby(
        [events["partition"], events["created"] // DAY_MS]
    ):
        _write(log_dir, BEHAVIOR_EVENTS_TOPIC, _event_table(rows), int(partition))
    labels = _labels(events, rng, num_labels)
    for partition, rows in labels.groupby("partition"):
        _write(log_dir, LABELS_TOPIC, _label_table(rows), int(partition))


def draw_events(rng: np.random.Generator, num_events: int) -> pd.DataFrame:
    """Return ``num_events`` events as columns of integers; request -1 is none."""
    num_behaviors = int(num_events * BEHAVIOR_SHARE)
    a_slate = SLATE * (1 + CLICK_RATE + DUPLICATES)
    num_slates = int((num_events - num_behaviors) / a_slate)
    busy = rng.lognormal(sigma=1.0, size=USERS)
    users = rng.choice(USERS, size=num_slates + num_behaviors, p=busy / busy.sum())
    topics = rng.zipf(1.15, size=num_slates * SLATE + num_behaviors) % (ITEMS // SLATE)
    items = topics * SLATE + np.arange(len(topics)) % SLATE  # distinct within a slate
    at_ms = START_MS + rng.integers(DAYS * DAY_MS, size=num_slates + num_behaviors)
    slate = np.repeat(np.arange(num_slates), SLATE)
    shown = pd.DataFrame(
        {
            "kind": IMPRESSION,
            "user": users[slate],
            "item": items[: len(slate)],
            "request": slate,
            "position": np.tile(np.arange(SLATE), num_slates),
            "occurred": at_ms[slate],
        }
    )
    clicked = shown[rng.random(len(slate)) < CLICK_RATE].assign(kind=CLICK)
    clicked["occurred"] += 1 + rng.exponential(30_000, len(clicked)).astype(int)
    again = shown[rng.random(len(slate)) < DUPLICATES]
    again = again.assign(occurred=again["occurred"] + 1000)
    acted = pd.DataFrame(
        {"kind": BEHAVIOR, "user": users[num_slates:], "item": items[len(slate) :]}
    ).assign(request=-1, position=-1, occurred=at_ms[num_slates:])
    events = pd.concat([shown, clicked, again, acted], ignore_index=True)
    late = rng.random(len(events)) < LATE_SHARE
    delay = rng.exponential(200, len(events)) + late * rng.exponential(
        3_600_000, len(events)
    )
    return events.assign(created=events["occurred"] + delay.astype(int))


def _event_table(rows: pd.DataFrame) -> pa.Table:
    is_behavior, shown = rows["kind"] == BEHAVIOR, rows["kind"] == IMPRESSION
    actions = np.array(ACTIONS, dtype=object)[rows["item"] % len(ACTIONS)]
    named = {
        "type": np.array(KINDS, dtype=object)[rows["kind"]],
        "request_id": pa.array(_ids("request-", rows["request"]), mask=is_behavior),
        "occurred_at": rows["occurred"],
        "created_at": rows["created"],
        "position": pa.array(rows["position"], mask=~shown),
        "action": pa.array(actions, mask=~is_behavior),
        "event_id": _ids("event-", rows["offset"]),
        "partition": rows["partition"],
        "offset": rows["offset"],
    }
    return _table(BEHAVIOR_EVENTS_TOPIC, rows, named)


def _labels(events: pd.DataFrame, rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Return the impressions of some requests, and which of them were clicked."""
    shown = events[events["kind"] == IMPRESSION].drop_duplicates(["request", "position"])
    requests = np.unique(shown["request"])
    most = min(-(-count // SLATE), len(requests))
    chosen = rng.choice(requests, size=most, replace=False)
    rows = shown[shown["request"].isin(chosen)]
    rows = rows.sort_values(["request", "position"])[:count]
    return rows.assign(clicked=rng.random(len(rows)) < CLICK_RATE)


def _label_table(rows: pd.DataFrame) -> pa.Table:
    clicked = rows["clicked"]
    named = {
        "request_id": _ids("request-", rows["request"]),
        "position": rows["position"],
        "impression_at": rows["occurred"],
        "clicked": clicked,
        "within_window": np.ones(len(rows), dtype=bool),
        "matured_at": rows["occurred"] + 1_800_000,
        "created_at": rows["occurred"] + 1_800_000,
        "revision": np.where(clicked, 2, 0),
        "partition": rows["partition"],
        "offset": np.arange(len(rows)),
    }
    return _table(LABELS_TOPIC, rows, named)


def _ids(prefix: str, numbers: Any) -> np.ndarray:
    names = np.array([f"{prefix}{n}" for n in np.unique(numbers).tolist()], dtype=object)
    return names[np.unique(numbers, return_inverse=True)[1]]


def _table(topic: str, rows: pd.DataFrame, named: dict[str, Any]) -> pa.Table:
    """Return ``named`` columns and ids in the topic's schema; the others are null."""
    ids = {f"{name}_id": _ids(f"{name}-", rows[name]) for name in ("user", "item")}
    named, size = named | ids, len(rows)
    return pa.table(
        [
            pa.array(named[field.name], type=field.type)
            if field.name in named
            else pa.nulls(size, field.type)
            for field in schema_of(topic)
        ],
        schema=schema_of(topic),
    )


def _write(log_dir: Path, topic: str, table: pa.Table, partition: int) -> None:
    logged = created(log_dir, topic)
    start = next_offset(logged, partition) or 0
    taken = range(start, start + len(table))
    assert append(logged, dated(table), {partition: taken})


if __name__ == "__main__":
    main()
