"""What a worker measures: events, lag, freshness and labels; and its events' spans."""

import time
from collections import Counter
from collections.abc import Collection, Sequence

import prometheus_client as metrics

from srp4ctr import tracing
from srp4ctr.metric_aliases import DeprecatedNames
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import now_ms
from srp4ctr.streams.state.label_join import LabelJoin

EVENTS = metrics.Counter("srp4ctr_events_total", "Events folded, by type", ["type"])
LAG = metrics.Gauge("srp4ctr_stream_lag_records", "Records on the topic not yet folded")
FRESHNESS = metrics.Histogram(
    "srp4ctr_event_to_sequence_seconds",
    "From an event's publication until the store had acknowledged its effect",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60),
)
STORE_WRITES = metrics.Histogram(
    "srp4ctr_store_write_seconds", "Time of one coalesced write to the store"
)
REBUILT = metrics.Counter("srp4ctr_users_rebuilt_total", "Users whose rows were rebuilt")
WAITING = metrics.Gauge(
    "srp4ctr_label_impressions_waiting", "Impressions and early clicks held for labels"
)
UNMATCHED = metrics.Gauge(
    "srp4ctr_label_unmatched_clicks", "Clicks dropped without an impression"
)
EVICTED_EARLY = metrics.Gauge(
    "srp4ctr_label_evicted_early", "Impressions evicted before a late click could come"
)
_OLD_NAMES = DeprecatedNames(EVICTED_EARLY)
_FRESH_MS = 3_600_000  # an older record is a backfill: its age says nothing of us


def observe(behind: int, joins: Collection[LabelJoin]) -> None:
    """Set the records that are ``behind``, and what the label joins hold."""
    LAG.set(behind)
    WAITING.set(sum(join.waiting for join in joins))
    UNMATCHED.set(sum(join.unmatched_clicks for join in joins))
    EVICTED_EARLY.set(sum(join.dropped_early for join in joins))


def trace(name: str, events: Sequence[LoggedEvent], began_ns: int) -> None:
    """Record span ``name`` of those events whose publisher's trace is recorded."""
    if not tracing.is_on():
        return
    for logged in events:
        if name == "fold":
            known_ns = logged.known_at_ms * 1_000_000
            tracing.record(logged.traceparent, "wait in Kafka", known_ns, began_ns)
        tracing.record(logged.traceparent, name, began_ns, time.time_ns())


def count(stored: Sequence[LoggedEvent]) -> None:
    """Count ``stored`` events, and how old they were when the store had them."""
    now = now_ms()
    for kind, number in Counter(type(each.event) for each in stored).items():
        EVENTS.labels(kind.__struct_config__.tag).inc(number)
    for logged in stored:
        if not logged.is_backfilled and now - logged.known_at_ms < _FRESH_MS:
            FRESHNESS.observe((now - logged.known_at_ms) / 1000)
