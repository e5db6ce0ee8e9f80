"""Runs the naive pipeline: a Faust agent that calls Feast's ``push`` per event.

The agent decodes the event, keeps the user's last L behaviours in a dict and pushes a
DataFrame of one row, four arrays. It writes no raw log, no labels and no counters, and
commits whenever Faust does.
"""

import asyncio
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import faust
import msgspec
import pandas as pd

from benchmarks.fault_injection.cluster import Cluster
from benchmarks.streaming.ingest_events import history, user_ids
from benchmarks.streaming.ingest_stack import Rate
from srp4ctr import processes
from srp4ctr.features.online.feast_import import lightly
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Behavior, Click, UserEvent
from srp4ctr.streams.state.sequences import element_of

_ARRAYS = ("item_keys", "actions", "occurred_at", "values")
_TIMEOUT_S = 300.0


def naive_rate(stack: Cluster, length: int, events: int, start_ms: int) -> Rate:
    """Return the rate of the naive pipeline over the topic's first ``events``."""
    result = stack.folder / "naive.json"
    task = {
        "bootstrap": stack.kafka.bootstrap,
        "redis": stack.features.redis,
        "folder": str(stack.folder),
        "length": length,
        "events": events,
        "start_ms": start_ms,
    }
    arguments = ("-m", "benchmarks.streaming.ingest_naive", json.dumps(task), str(result))
    naive = processes.start(processes.python("naive", *arguments), stack.folder, tied=True)
    processes.wait_ready(naive, result.is_file, timeout_s=_TIMEOUT_S)
    processes.stop(naive, stack.folder)
    took = json.loads(result.read_text())
    return Rate(per_s=events / took["wall_s"], per_core_s=events / took["cpu_s"])


def run(task: dict[str, Any], result: Path) -> None:
    """Push ``task["events"]`` events, write the times into ``result``, and idle."""
    folder = Path(task["folder"])
    app = faust.App(
        "naive",
        broker=f"aiokafka://{task['bootstrap']}",
        store="memory://",
        datadir=str(folder / "naive-faust"),
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    topic = app.topic(BEHAVIOR_EVENTS_TOPIC, key_serializer="raw", value_serializer="raw")
    pipeline = _Pipeline(_store(folder, task["redis"]), task["length"], task["start_ms"])

    @app.agent(topic)  # type: ignore[untyped-decorator]
    async def keep_sequences(stream: Any) -> None:
        number = 0
        async for payload in stream:
            if number == 0:
                wall_s, cpu_s = time.perf_counter(), time.process_time()
            pipeline.push(payload)
            number += 1
            if number == task["events"]:
                break
        took = {
            "wall_s": time.perf_counter() - wall_s,
            "cpu_s": time.process_time() - cpu_s,
        }
        part = result.with_suffix(".part")
        part.write_text(json.dumps(took))
        part.replace(result)  # whole, when it appears
        await asyncio.Event().wait()

    faust.Worker(app, loglevel="WARN", redirect_stdouts=False).execute_from_commandline()


class _Pipeline:
    """Event → the user's last L behaviours in a dict → one push."""

    def __init__(self, store: Any, length: int, start_ms: int) -> None:
        self._store, self._length = store, length
        self._decoder = msgspec.json.Decoder(UserEvent)
        self._sequences = {
            user: history(number, length, start_ms)
            for number, user in enumerate(user_ids())
        }

    def push(self, payload: bytes) -> None:
        """Push the row of the event's user."""
        event = self._decoder.decode(payload)
        elements = self._sequences[event.user_id]
        if isinstance(event, Click | Behavior):
            elements.append(element_of(event))
            del elements[: -self._length]
        row = {
            "user_id": event.user_id,
            "item_keys": [each.item_key for each in elements],
            "actions": [each.action for each in elements],
            "occurred_at": [each.occurred_at for each in elements],
            "values": [each.value or 0.0 for each in elements],
            "event_timestamp": pd.Timestamp(event.occurred_at, unit="ms", tz="UTC"),
        }
        self._store.push("user_events", pd.DataFrame([row]))


def _store(folder: Path, redis: str) -> Any:
    """Return Feast's store of a project with one view, applied."""
    lightly()
    import feast
    from feast.types import Array, Float64, Int64, String

    user = feast.Entity(
        name="user", join_keys=["user_id"], value_type=feast.ValueType.STRING
    )
    never_read = feast.FileSource(
        name="user_log", path="none.parquet", timestamp_field="event_timestamp"
    )
    arrays = [feast.Field(name=name, dtype=Array(Int64)) for name in _ARRAYS[:3]]
    view = feast.FeatureView(
        name="user_sequence",
        entities=[user],
        ttl=timedelta(0),
        schema=[
            feast.Field(name="user_id", dtype=String),
            *arrays,
            feast.Field(name=_ARRAYS[3], dtype=Array(Float64)),
        ],
        source=feast.PushSource(name="user_events", batch_source=never_read),
    )
    store = feast.FeatureStore(
        config=feast.RepoConfig(
            project="naive",
            provider="local",
            registry=str(folder / "naive.db"),
            online_store={"type": "redis", "connection_string": redis},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    store.apply([user, view])
    return store


if __name__ == "__main__":  # the process that ``naive_rate`` starts
    run(json.loads(sys.argv[1]), Path(sys.argv[2]))
