"""Runs in a stream container: how far the stream is, as one line of JSON."""

import json

from srp4ctr import settings
from srp4ctr.streams.broker.topics import committed_offsets, end_offsets
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import dataset

found = settings.load()
folded = committed_offsets(found.kafka, found.streams.group_id, BEHAVIOR_EVENTS_TOPIC)
log = dataset(found.features.raw_log, BEHAVIOR_EVENTS_TOPIC)
rows = log.to_table(["partition", "offset"]).to_pydict()
print(  # noqa: T201  (that is what it is for)
    json.dumps(
        {
            "end": sum(end_offsets(found.kafka, BEHAVIOR_EVENTS_TOPIC).values()),
            "folded": sum(folded.values()),
            "events": len(set(zip(*rows.values(), strict=True))),
        }
    )
)
