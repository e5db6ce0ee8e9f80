"""Question: what does serving's table of items take, and how late is a changed counter?

A store with 2,000 and 500,000 items, two idle serving processes and their refresher: CPU
while 100 items change every second, the delay after the store's answer to a worker until
the table has what it wrote, memory, and the time of a lookup of 300 items.

    make bench NAME=item_table
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT, parser_of, say
from benchmarks.streaming.ingest_stack import cpu_s
from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_map, row_codec
from srp4ctr.features.online.item_cache import ItemTable, open_table
from srp4ctr.features.online.item_map import UP_TO_DATE_MS, ItemMemory
from srp4ctr.features.online.store import FeatureStoreSink, OnlineViews
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import ItemProfile

SIZES, IDLE_RATE, BUSY_RATE = (2_000, 500_000), 100, 5_000
SERVING, FLUSHES_PER_S, PARTITIONS = 2, 4, 4
CANDIDATES, LOOKUPS = 300, 2_000
# As a step does: it opens the table, and then waits for requests.
_SERVES = """
import json, sys, time
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.item_cache import open_table
from srp4ctr.features.tensors import vocabulary
open_table(FeatureConfig(**json.loads(sys.argv[1])), vocabulary.build({}, []))
print("ready", flush=True)
time.sleep(1e6)
"""
Row = dict[str, Any]


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--items", type=int, nargs="+", default=SIZES, help="of a store")
    options = parser.parse_args()
    rows = [measure(items, options.seconds) for items in options.items]
    for name in rows[0]:
        print(f"{name:<34}" + "".join(f"{row[name]:>12,.6g}" for row in rows))
    print(json.dumps({"serving_processes": SERVING, "rows": rows}))


def measure(items: int, seconds: float) -> Row:
    """Return the figures of a store with ``items`` items."""
    with store() as config, ExitStack() as opened:
        say(f"{items:,} items")
        keys = [item_key(f"item-{each}") for each in range(items)]
        _fill(config, items)
        began = time.monotonic()
        serving = [opened.enter_context(_serving(config)) for _ in range(SERVING)]
        words = vocabulary.build({}, [{"genre": f"g{each % 20}"} for each in range(100)])
        table = open_table(config, words)
        opened.callback(table.stop)
        _wait_whole(config)
        filled_s = time.monotonic() - began
        refresher = _refresher(config)
        before = [cpu_s(pid) for pid in (*serving, refresher)]
        filled_cpu_s = before[-1]
        idle = _changes(config, table, keys, IDLE_RATE, seconds)
        taken = [cpu_s(p) - b for p, b in zip((*serving, refresher), before, strict=True)]
        before_busy = cpu_s(refresher)
        busy = _changes(config, table, keys, BUSY_RATE, seconds)
        busy_s = cpu_s(refresher) - before_busy
        rows = len(busy) * min(BUSY_RATE // FLUSHES_PER_S, items)
        return {
            "items": items,
            "filled_s": round(filled_s, 1),
            "filled_cpu_us_per_row": round(1e6 * filled_cpu_s / (2 * items), 1),
            "idle_serving_cores": round(sum(taken[:-1]) / seconds, 5),
            "idle_refresher_cores": round(taken[-1] / seconds, 5),
            "busy_rows_per_s": round(rows / seconds),
            "busy_refresher_us_per_row": round(1e6 * busy_s / rows, 1),
            "delay_p50_ms": round(float(np.percentile(idle, 50))),
            "delay_p99_ms": round(float(np.percentile(idle, 99))),
            "busy_delay_p50_ms": round(float(np.percentile(busy, 50))),
            "busy_delay_p99_ms": round(float(np.percentile(busy, 99))),
            "shared_mb": round(_shared_mb(config), 1),
            "refresher_private_mb": round(_private_mb(refresher), 1),
            "serving_private_mb": round(_private_mb(serving[0]), 1),
            "lookup_us": round(_lookup_us(table, keys), 1),
        }


@contextmanager
def store() -> Iterator[FeatureConfig]:
    """Yield the settings of a new store, which does not wait for the disk."""
    with tempfile.TemporaryDirectory() as name, ports.reserved_ports(1) as (port,):
        running = broker.start_store(Path(name), port, tied=True, syncs=False)
        try:
            yield FeatureConfig(redis=f"{ports.HOST}:{port}")
        finally:
            processes.stop(running, Path(name))


@contextmanager
def _serving(config: FeatureConfig) -> Iterator[int]:
    settings = json.dumps({"redis": config.redis})
    command = [sys.executable, "-c", _SERVES, settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def _fill(config: FeatureConfig, items: int) -> None:
    """Store a share of each item's counters, and its profile, without the stream."""
    shares, profiles = row_codec.ITEM_ACTIVITY, row_codec.PROFILES
    activity, views = _activity(1), OnlineViews(config)

    def write(numbers: Sequence[int], client: Any) -> None:
        with client.pipeline(transaction=False) as pipe:
            for number in numbers:
                profile = _profile(number)
                for view, row in (
                    (shares, shares.stored((profile.item_key, number % 4), activity)),
                    (profiles, profiles.stored(profile.item_key, profile)),
                ):
                    values = (row_codec.time_of(row.version_us), *row.values)
                    pipe.hset(row.key, mapping=dict(zip(view.fields, values, strict=True)))
            pipe.execute()

    for first in range(0, items, 1000):
        numbers = range(first, min(first + 1000, items))
        views.call(partial(write, numbers))


def _profile(number: int) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(f"item-{number}"),
        item_id=f"item-{number}",
        attributes={"title": f"The title of item {number}", "genre": f"g{number % 20}"},
        updated_at_ms=1,
    )


def _activity(at_ms: int) -> Activity:
    counts = (1.0, 2.0, 3.0, 4.0)
    return Activity(
        impressions=counts,
        clicks=counts,
        counted_at_ms=at_ms,
        first_seen_ms=1,
        version_us=at_ms * 1000,
    )


def _changes(
    config: FeatureConfig,
    table: ItemTable,
    keys: Sequence[int],
    rate: int,
    seconds: float,
) -> list[float]:
    """Change ``rate`` items a second; return the delays in ms until each flush is there.

    From the store's answer on, until all items of the flush are there.
    """
    sink, chance, delays = FeatureStoreSink(config), random.Random(rate), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began, at_ms = time.monotonic(), time.time_ns() // 1_000_000
        drawn = chance.sample(keys, min(rate // FLUSHES_PER_S, len(keys)))
        activity = _activity(at_ms)
        sink.write(
            Rows(shares={(key, chance.randrange(PARTITIONS)): activity for key in drawn})
        )
        stored, wanted = time.monotonic(), np.array(drawn)
        while (table.lookup(wanted).activity.counted_at_ms < at_ms).any():
            time.sleep(0.005)
        delays.append(1e3 * (time.monotonic() - stored))
        rest_s = began + chance.uniform(0.5, 1.5) / FLUSHES_PER_S - time.monotonic()
        time.sleep(max(rest_s, 0.0))
    return delays


def _wait_whole(config: FeatureConfig) -> None:
    memory = ItemMemory(item_map.folder_of(config))
    while not memory.head[UP_TO_DATE_MS]:
        time.sleep(0.1)


def _refresher(config: FeatureConfig) -> int:
    folder = os.fsencode(item_map.folder_of(config))
    files = Path("/proc").glob("[0-9]*/cmdline")
    (found,) = [file for file in files if folder in file.read_bytes().split(b"\0")]
    return int(found.parent.name)


def _shared_mb(config: FeatureConfig) -> float:
    files = item_map.folder_of(config).iterdir()
    return sum(file.stat().st_blocks * 512 for file in files) / 1e6


def _private_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(each.split()[1]) for each in lines if each.startswith("Private")) / 1e3


def _lookup_us(table: ItemTable, keys: Sequence[int]) -> float:
    chance, known = np.random.default_rng(0), np.array(keys)
    wanted = [chance.choice(known, (1, CANDIDATES)) for _ in range(LOOKUPS)]
    times = []
    for each in (*wanted, *wanted):  # the first time attributes are parsed
        began = time.perf_counter()
        table.lookup(each)
        times.append(time.perf_counter() - began)
    return 1e6 * float(np.median(times[LOOKUPS:]))


if __name__ == "__main__":
    main()
