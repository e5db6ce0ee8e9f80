"""Question: what does an event, a user, an item and a request take of broker and store?

The constants of ``srp4ctr capacity`` that no other benchmark measures: CPU time and bytes
by event, user, item and read, at two lengths of histories, on Apache Kafka and Valkey.

    make bench NAME=footprints
"""

import json
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from redis import Redis

from benchmarks import parser_of
from benchmarks.streaming.ingest_stack import (
    cpu_s,
    fill,
    publish,
    rate_of,
    running_stack,
)
from srp4ctr import processes
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    LABELS_TOPIC,
    item_key,
)
from srp4ctr.streams.raw_log.delta_tables import LOGGED_TOPICS, opened
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.testing.fault_injection.cluster import Cluster
from srp4ctr.testing.ingest_events import (
    ITEMS,
    USERS,
    begin_ms,
    draw_events,
    past_activity,
    user_ids,
)
from srp4ctr.testing.serving_stack import catalogue
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import HISTORY_NAMES, Windows
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.export.onnx_export import sample
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.pretraining import pretrain

EVENTS, READS, WINDOWS = 60_000, 4_000, 512
LENGTHS = (50, 200)
_CHUNK = 40  # items a read
_SEGMENT_SUFFIX = "*.log"
Row = dict[str, Any]


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help="of each length")
    options = parser.parse_args()
    rows = [measure(length, options.events) for length in LENGTHS]
    for name in rows[0]:
        print(f"{name:<34}" + "".join(f"{row[name]:>14,.6g}" for row in rows))
    found = {
        "events": options.events,
        "exposures": EXPOSURE_LENGTH,
        "rows": rows,
    }
    print(json.dumps(found))


def measure(length: int, num_events: int) -> Row:
    """Return the figures of histories of ``length`` behaviours, on a stack of its own."""
    start_ms = begin_ms()
    events = draw_events(num_events, seed=0, start_ms=start_ms)
    with running_stack("kafka", length) as stack:
        servers = [stack.running[name] for name in ("store", "kafka")]
        store, broker = servers
        memory = fill(stack, length, start_ms)
        read_user_s = _store_s(store, READS, lambda: _read_users(stack.features))
        share, profile = _item_bytes(stack, start_ms)
        read_item_s = _store_s(store, ITEMS, lambda: _read_items(stack.features))
        publish(stack, events)
        before = {server.name: cpu_s(server.pid) for server in servers}
        rate = rate_of(stack, [stack.start_worker(0)], len(events))
        taken = {server.name: cpu_s(server.pid) - before[server.name] for server in servers}
        kafka_bytes, log_bytes = _kafka_bytes(stack), _log_bytes(stack)
    return {
        "length": length,
        "worker_us_per_event": round(1e6 / rate.per_core_s, 2),
        "bytes_per_user": round(memory.share),
        "bytes_per_item_share": round(share),
        "bytes_per_item_profile": round(profile),
        "kafka_bytes_per_event": round(kafka_bytes / len(events)),
        "log_bytes_per_event": round(log_bytes / len(events)),
        "store_us_per_event": round(1e6 * taken[store.name] / len(events), 2),
        "kafka_us_per_event": round(1e6 * taken[broker.name] / len(events), 2),
        "store_us_per_user_read": round(1e6 * read_user_s, 2),
        "store_us_per_item_read": round(1e6 * read_item_s, 2),
        "pretraining_ms_per_window": round(1e3 * _pretraining_s(length), 3),
    }


def _pretraining_s(length: int) -> float:
    """Return the CPU seconds of one window in one epoch of pre-training, on one thread."""
    torch.set_num_threads(1)
    tables = TableSizes.of(catalogue(), length)
    model = SRP4CTR(ModelConfig(), tables)
    sizes = sizes_of(ModelConfig(), tables) | {"W": EXPOSURE_LENGTH}
    drawn = sample(sizes, requests=WINDOWS, candidates=1)
    windows = Windows(tensors={name: drawn[name].numpy() for name in HISTORY_NAMES})
    before = time.process_time()
    pretrain(model, windows, RefreshConfig(pretrain_epochs=1), FitOptions())
    return (time.process_time() - before) / WINDOWS


def _store_s(store: processes.Running, number: int, read: Callable[[], None]) -> float:
    """Return the CPU seconds of the store for each of the ``number`` reads."""
    before = cpu_s(store.pid)
    read()
    return (cpu_s(store.pid) - before) / number


def _read_users(features: FeatureConfig) -> None:
    from srp4ctr.features.online.store import OnlineViews

    views, users = OnlineViews(features), user_ids()
    for number in range(READS):  # one per request, as serving reads
        views.read_users([users[number % USERS]])


def _read_items(features: FeatureConfig) -> None:
    """Read every item's rows, as a sweep of the table of items does."""
    from srp4ctr.features.online.store import OnlineViews

    views, keys = OnlineViews(features), [item_key(_item(n)) for n in range(ITEMS)]
    partitions = range(features.partitions)
    for first in range(0, ITEMS, _CHUNK):
        chunk = keys[first : first + _CHUNK]
        views.read_profiles(chunk)
        views.read_shares((key, place) for key in chunk for place in partitions)


def _item_bytes(stack: Cluster, start_ms: int) -> tuple[float, float]:
    """Store every item; return the bytes of a share of its counters, and of its profile."""
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(stack.features)
    empty = _used(stack)
    numbers = range(stack.kafka.partitions)
    keys = [(item_key(_item(each)), place) for each in range(ITEMS) for place in numbers]
    sink.write(Rows(shares=dict.fromkeys(keys, past_activity(start_ms))))
    counted = _used(stack)
    sink.write_profiles([_profile(each, start_ms) for each in range(ITEMS)])
    return (counted - empty) / len(keys), (_used(stack) - counted) / ITEMS


def _profile(number: int, at_ms: int) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(_item(number)),
        item_id=_item(number),
        attributes={
            "title": f"The title of item {number}, some words long",
            "genres": (f"genre-{number % 20}", f"genre-{number * 7 % 20}"),
            "year": str(1960 + number % 60),
        },
        updated_at_ms=at_ms,
    )


def _item(number: int) -> str:
    return f"item-{number}"


def _used(stack: Cluster) -> int:
    time.sleep(1.5)  # the append-only file keeps its buffers for a second
    store: Any = Redis.from_url(f"redis://{stack.features.redis}")
    try:
        return int(store.info("memory")["used_memory"])
    finally:
        store.close()


def _kafka_bytes(stack: Cluster) -> int:
    """Return what the topics of events and labels take on the broker's disk."""
    return sum(
        segment.stat().st_size
        for topic in (BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC)
        for segment in (stack.folder / "kafka").rglob(f"{topic}-*/{_SEGMENT_SUFFIX}")
    )


def _log_bytes(stack: Cluster) -> int:
    """Return what the raw log of events, items and labels takes."""
    tables = [opened(stack.features.raw_log, topic) for topic in LOGGED_TOPICS]
    files = [pa.table(table.get_add_actions(flatten=True)) for table in tables if table]
    return sum(pc.sum(file["size_bytes"]).as_py() or 0 for file in files)


if __name__ == "__main__":
    main()
