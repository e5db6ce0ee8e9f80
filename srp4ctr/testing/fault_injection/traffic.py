"""Publishes events and poison as in production: late, twice and out of order.

In: a rate and a seed. Out: records on the broker from a thread of its own, and a list of
what was published where, which is the truth that the verdict starts from.
"""

import heapq
import itertools
import json
import queue
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaProducer

from srp4ctr.streams.broker.producer import BACKFILL_HEADERS, disconnect, renewing
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import MAX_MESSAGE_BYTES, Reason, encode, event_key
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    Behavior,
    Event,
    Forget,
    Impression,
    ItemUpdate,
)
from srp4ctr.testing.raw_logs import click_on

SLATE = 5
_TICK_S = 0.02
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is published: an event, or bytes that are to be rejected for ``reason``."""

    topic: str
    key: bytes | None
    value: bytes | None
    event: Event | None = None
    reason: Reason | None = None


@dataclass(slots=True, kw_only=True)
class Shape:
    """What the traffic is like."""

    users: int = 120
    items: int = 60
    events_per_s: float = 150.0
    window_s: float = 10.0
    seed: int = 1


@dataclass(slots=True)
class Traffic:
    """Publishes until ``end``; ``published`` then says what is on the topics."""

    kafka: KafkaConfig
    shape: Shape
    published: list[tuple[Message, Any]] = field(default_factory=list)
    """Each message and the future of its acknowledgement."""
    patience_s: float = 120.0
    """How long the broker may take for what is due at the end."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _bursts: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    _backfills: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    _held: threading.Event = field(default_factory=threading.Event)
    _publishing: Future[None] | None = None

    def start(self) -> None:
        """Begin to publish."""
        pool = ThreadPoolExecutor(1)
        self._publishing = pool.submit(self._run)
        pool.shutdown(wait=False)

    def burst(self, events: int) -> None:
        """Publish more events at once: more than a batch takes."""
        self._bursts.put(events)

    def backfill(self, events: int) -> None:
        """Publish ``events`` of an hour ago at once, known since they happened."""
        self._backfills.put(events)

    def hold(self) -> None:
        """Publish nothing until ``resume``."""
        self._held.set()

    def resume(self) -> None:
        """Publish again."""
        self._held.clear()

    def send_compressed(self, message: Message) -> None:
        """Publish ``message`` in a batch that is small once it is compressed."""
        producer = KafkaProducer(
            bootstrap_servers=self.kafka.bootstrap,
            acks="all",
            compression_type="gzip",
            max_request_size=4 * len(message.key or b""),
            metrics_enabled=False,
        )
        try:
            self._send(producer, message)
            producer.flush(timeout=self.patience_s)
        finally:
            disconnect(producer)

    def end(self) -> None:
        """Publish what is still due, at once; return when the broker has it all.

        Raises ``KafkaTimeoutError`` where it has not after ``patience_s``.
        """
        self._ended.set()
        if self._publishing is not None:
            self._publishing.result()

    def _run(self) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self.kafka.bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=4 * 1024 * 1024,
            reconnect_backoff_max_ms=500,
            metrics_enabled=False,
        )
        try:
            self._publish_all(renewing(producer))
            producer.flush(timeout=self.patience_s)
        finally:
            disconnect(producer)

    def _publish_all(self, producer: Any) -> None:
        visits = Visits(self.shape)
        waiting: list[tuple[float, int, Message]] = []
        number = itertools.count()
        owed, before = 0.0, time.monotonic()
        while not self._ended.is_set():
            now = time.monotonic()
            owed += (now - before) * self.shape.events_per_s
            before = now
            if self._held.is_set():
                owed = 0.0
                time.sleep(_TICK_S)
                continue
            self._publish_past(producer, visits, _drained(self._backfills))
            owed += _drained(self._bursts)
            while owed > 0:
                visit = visits.next(time.time_ns() // 1_000_000)
                owed -= len(visit)
                for delay_s, message in visit:
                    heapq.heappush(waiting, (now + delay_s, next(number), message))
            while waiting and waiting[0][0] <= now:
                self._send(producer, heapq.heappop(waiting)[2])
            time.sleep(_TICK_S)
        while waiting:
            self._send(producer, heapq.heappop(waiting)[2])

    def _publish_past(self, producer: Any, visits: "Visits", events: int) -> None:
        """Publish ``events`` of visits of an hour ago, in their order."""
        began_ms = time.time_ns() // 1_000_000 - _HOUR_MS
        while events > 0:
            visit = [message for _, message in visits.next(began_ms)]
            events -= len(visit)
            began_ms += 1
            for message in sorted(visit, key=_happened_at):
                self._send(producer, message, _happened_at(message) or began_ms)

    def _send(self, producer: Any, message: Message, at_ms: int | None = None) -> None:
        """Publish ``message`` as known at ``at_ms``, or now."""
        headers = [*BACKFILL_HEADERS] if at_ms else []
        sent = producer.send(
            message.topic,
            value=message.value,
            key=message.key,
            timestamp_ms=at_ms,
            headers=headers,
        )
        self.published.append((message, sent))


def _drained(numbers: queue.SimpleQueue[int]) -> int:
    """Take what is in ``numbers``; return the sum."""
    total = 0
    while not numbers.empty():
        total += numbers.get()
    return total


def _happened_at(message: Message) -> int:
    return message.event.occurred_at if message.event else 0


class Visits:
    """Makes users' visits, each a list of (seconds until it is published, message)."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._chance = random.Random(shape.seed)
        self._number = itertools.count()
        self._updated_ms = 0

    def next(self, now_ms: int) -> list[tuple[float, Message]]:
        """Return one visit of one user, begun at ``now_ms``."""
        chance = self._chance
        user = f"u{chance.randrange(self._shape.users)}"
        request = f"r{next(self._number)}"
        happened = self._slate(user, request, now_ms)
        happened += self._behaviors(user, now_ms)
        if chance.random() < 0.1:
            happened.append(self._update(now_ms))
        visit = []
        for event in happened:
            due_s = max(0.0, (event.occurred_at - now_ms) / 1000) + self._delay_s()
            visit.append((due_s, _message(event)))
            if chance.random() < 0.08:  # the producer tried again
                visit.append((due_s + chance.uniform(0, 8), _message(event)))
        if chance.random() < 0.01:
            forget = Forget(event_id=f"f-{request}", user_id=user, occurred_at=now_ms)
            visit += [(0.0, _message(forget)), (chance.uniform(0, 8), _message(forget))]
        if chance.random() < 0.15:
            visit.append((chance.uniform(0, 3), a_poison(chance, user, request, now_ms)))
        return visit

    def _slate(self, user: str, request: str, now_ms: int) -> list[Event]:
        """Impressions, and clicks in the window, after it, twice, or a little early."""
        chance, window_s = self._chance, self._shape.window_s
        events: list[Event] = []
        for position, item in enumerate(chance.sample(range(self._shape.items), SLATE)):
            shown = Impression(
                event_id=f"{request}-{item}",
                request_id=request,
                user_id=user,
                item_id=f"i{item}",
                position=position,
                occurred_at=now_ms,
                model_version=chance.choice([None, "v1"]),
                score=round(chance.random(), 6),
            )
            events.append(shown)
            after_s = chance.choice([None, None, None, 0.0, 0.3, 0.8, 1.0, 1.2, 1.6])
            if after_s is None:
                continue
            for again in range(1 + (chance.random() < 0.1)):
                at_ms = now_ms + round(1000 * after_s * window_s) + again
                event_id = f"{shown.event_id}-{at_ms}"
                events.append(click_on(shown, at_ms, event_id))
        return events

    def _behaviors(self, user: str, now_ms: int) -> list[Event]:
        """Views and ratings, some published late, some at one instant."""
        chance = self._chance
        return [
            Behavior(
                event_id=f"behavior-{next(self._number)}",
                user_id=user,
                item_id=f"i{chance.randrange(self._shape.items)}",
                action=chance.choice(["view", "rate", "dwell"]),
                value=chance.choice([None, 1.0, 2.5]),
                occurred_at=now_ms - chance.choice([0, 0, 0, 40, 5_000, 60_000, _HOUR_MS]),
            )
            for _ in range(chance.randrange(3))
        ]

    def _update(self, now_ms: int) -> Event:
        """Return an item's next state; no two happen at one instant: neither would win."""
        number = next(self._number)
        self._updated_ms = max(now_ms, self._updated_ms + 1)
        return ItemUpdate(
            event_id=f"update-{number}",
            item_id=f"i{self._chance.randrange(self._shape.items)}",
            occurred_at=self._updated_ms,
            attributes={"number": str(number)},
        )

    def _delay_s(self) -> float:
        """Most come at once; some so late that others overtake them."""
        chance = self._chance
        return chance.choice([0.0] * 8 + [chance.uniform(0, 4), chance.uniform(0, 15)])


def a_poison(chance: random.Random, user: str, mark: str, now_ms: int) -> Message:
    """Return something that is no event, identified by ``mark``."""
    click = {
        "type": "click",
        "event_id": mark,
        "request_id": mark,
        "user_id": user,
        "item_id": "i1",
        "occurred_at": now_ms,
    }
    key: bytes | None = user.encode()
    update = ItemUpdate(
        event_id=mark, item_id="i1", occurred_at=now_ms, attributes={"a": "b"}
    )
    kinds: list[tuple[Reason, bytes | None, bytes | None]] = [
        (Reason.BROKEN_JSON, key, b"{" + mark.encode()),
        (Reason.BROKEN_JSON, key, None),
        (Reason.UNKNOWN_TYPE, key, _json(click | {"type": "purchase"})),
        (Reason.MISSING_FIELD, key, _json({"type": "click", "event_id": mark})),
        (Reason.INVALID_FIELD, key, _json(click | {"item_id": 7})),
        (Reason.TIME_IN_SECONDS, key, _json(click | {"occurred_at": now_ms // 1000})),
        (Reason.TIME_IN_FUTURE, key, _json(click | {"occurred_at": now_ms * 1000})),
        (Reason.TOO_LARGE, key, _json(click | {"pad": "x" * MAX_MESSAGE_BYTES})),
        (Reason.WRONG_KEY, b"another", _json(click)),
        (Reason.WRONG_TOPIC, b"i1", encode(update)),
    ]
    reason, key, value = chance.choice(kinds)
    return Message(topic=BEHAVIOR_EVENTS_TOPIC, key=key, value=value, reason=reason)


def _message(event: Event) -> Message:
    is_update = isinstance(event, ItemUpdate)
    return Message(
        topic=ITEMS_TOPIC if is_update else BEHAVIOR_EVENTS_TOPIC,
        key=event_key(event),
        value=encode(event),
        event=event,
    )


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()
