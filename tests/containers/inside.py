"""Runs in a stream container: how far the stream is, as one line of JSON."""

import json
from pathlib import Path

import pyarrow.dataset as ds

from srp4ctr import settings
from srp4ctr.streams.broker.topics import committed_offsets, end_offsets
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC

found = settings.load()
folded = committed_offsets(found.kafka, found.streams.group_id, BEHAVIOR_EVENTS_TOPIC)
log = Path(found.features.log_dir) / BEHAVIOR_EVENTS_TOPIC
files = sorted(log.glob("date=*/*.parquet"))
columns = ["partition", "offset"]
rows = ds.dataset(files).to_table(columns=columns).to_pydict() if files else {}
print(  # noqa: T201  (that is what it is for)
    json.dumps(
        {
            "end": sum(end_offsets(found.kafka, BEHAVIOR_EVENTS_TOPIC).values()),
            "folded": sum(folded.values()),
            "events": len(set(zip(*rows.values(), strict=True))) if rows else 0,
        }
    )
)
