"""Publishes events at an even rate, and measures how soon the store has them.

Every 100 ms a click or behaviour is probed: its user's row is read every 10 ms, by the
views that serving reads by.
"""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.events.schema import Behavior, Click, UserEvent
from srp4ctr.streams.state.sequences import SequenceElement, element_of
from srp4ctr.testing.fault_injection.cluster import Cluster

_PROBE_EVERY_S, _POLL_S = 0.1, 0.01
_TICK_S = 0.005
_WARM_S = 2.0  # the labels of the backfill's last half hour mature first
_PATIENCE_S = 30.0
_READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """Published → readable."""

    per_s: float
    """The rate at which events were published."""
    probes: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    user_id: str
    element: SequenceElement
    published_s: float


def freshness(stack: Cluster, events: Sequence[UserEvent], per_s: float) -> Freshness:
    """Publish ``events`` at ``per_s``, as happening now, and return how fresh reads are.

    Raises ``TimeoutError`` for an event that does not come within 30 s.
    """
    context = multiprocessing.get_context("spawn")
    probes, others_end = context.Pipe()
    # A process of its own: in a thread it would wait for the publisher's interpreter.
    reader = context.Process(target=_poll, args=(stack.features, others_end), daemon=True)
    reader.start()
    others_end.close()  # so that its death ends ours
    assert probes.recv() == _READY
    with EventPublisher(stack.kafka) as publisher:
        began = time.monotonic()
        next_probe = began + _WARM_S
        for number, event in enumerate(events):
            while (wait_s := began + number / per_s - time.monotonic()) > 0:
                time.sleep(max(wait_s, _TICK_S))
            now_s, now_ms = time.monotonic(), time.time_ns() // 1_000_000
            happening = msgspec.structs.replace(event, occurred_at=now_ms)
            if now_s >= next_probe and isinstance(happening, Click | Behavior):
                next_probe += _PROBE_EVERY_S
                element = element_of(happening)
                probes.send(
                    _Probe(user_id=event.user_id, element=element, published_s=now_s)
                )
            publisher.publish(happening)
        took_s = time.monotonic() - began
        probes.send(None)
        seen_ms = probes.recv()
        reader.join()
    if isinstance(seen_ms, str):
        raise TimeoutError(seen_ms)
    p50, p99 = np.percentile(seen_ms, (50, 99)).tolist()
    return Freshness(
        per_s=len(events) / took_s,
        probes=len(seen_ms),
        p50_ms=float(p50),
        p99_ms=float(p99),
    )


def _poll(features: FeatureConfig, probes: Any) -> None:
    """Send after how many milliseconds each probe was readable, once a None has come.

    A sentence in their place names one that never was.
    """
    from srp4ctr.features.online.store import OnlineViews

    views = OnlineViews(features)
    probes.send(_READY)
    waiting: list[_Probe] = []
    seen_ms: list[float] = []
    open_ended = True
    while open_ended or waiting:
        while probes.poll():
            probe = probes.recv()
            if probe is None:
                open_ended = False
            else:
                waiting.append(probe)
        readable = _readable(views, waiting)
        now_s = time.monotonic()
        seen_ms += [(now_s - each.published_s) * 1000 for each in readable]
        waiting = [each for each in waiting if each not in readable]
        if waiting and now_s - waiting[0].published_s > _PATIENCE_S:
            probes.send(f"never seen in the store: {waiting[0]}")
            return
        time.sleep(_POLL_S)
    probes.send(seen_ms)


def _readable(views: Any, waiting: Sequence[_Probe]) -> list[_Probe]:
    """Return the probes whose element is in the store now."""
    rows = views.read_users({each.user_id for each in waiting})
    elements = {user: row.sequence.elements for user, row in rows.items()}
    return [each for each in waiting if _has(elements[each.user_id], each.element)]


def _has(elements: Sequence[SequenceElement], element: SequenceElement) -> bool:
    """Return whether ``element`` is there, or L newer ones have pushed it out already."""
    return element in elements or elements[0].occurred_at > element.occurred_at
