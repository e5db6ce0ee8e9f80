"""What a worker measures: events, lag, freshness and labels; and its events' spans."""

import time
from collections import Counter
from collections.abc import Collection, Sequence

from srp4ctr import metrics, tracing
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import now_ms
from srp4ctr.streams.state.label_join import LabelJoin

EVENTS = metrics.counter("srp4ctr_events_total")
LAG = metrics.gauge("srp4ctr_stream_lag_records")
FRESHNESS = metrics.histogram("srp4ctr_event_to_sequence_seconds")
STORE_WRITES = metrics.histogram("srp4ctr_store_write_seconds")
REBUILT = metrics.counter("srp4ctr_users_rebuilt_total")
WAITING = metrics.gauge("srp4ctr_label_impressions_waiting")
UNMATCHED = metrics.gauge("srp4ctr_label_unmatched_clicks")
EVICTED_EARLY = metrics.gauge("srp4ctr_label_evicted_early")
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
