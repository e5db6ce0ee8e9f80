"""Simulates visitors: each requests a ranking, is shown its top, sometimes clicks.

What was published and how the requests went is written down every few seconds, one JSON
line a time and visitor, so that a run that was cut short can still be read.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.callers import Callers, ends_within, wait_for_all
from srp4ctr.client.messages import Ranking
from srp4ctr.client.rank_client import RankClient
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import Behavior, Event, ItemUpdate
from srp4ctr.testing.raw_logs import click_on

VISITORS, USERS = 2, 2_000
ITEMS = 2_000  # as serving_stack.py has it, which imports torch: no visitor does
CANDIDATES, SHOWN, BEHAVIORS = 100, 8, 5
CLICK_RATE = 0.1
DEADLINE_S = 1.0
SLOW_MS = 50.0
_NOTE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Which stack visitors visit, and the folder of what they write down."""

    address: str
    kafka: KafkaConfig
    notes: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What all visitors have written down."""

    requests: int
    failed: int
    events: int
    """Acknowledged by the broker."""
    impressions: int
    latencies_ms: tuple[float, ...]
    errors: Mapping[str, int]
    """The errors of failed requests, and how many of each."""
    failed_at_s: tuple[float, ...] = ()
    """When each of them failed, UTC."""


def visiting(visit: Visit, name: str, per_s: float | None) -> Callers:
    """Let visitors visit ``per_s`` times together, or None: as fast as they are served.

    Ids of events begin with ``name``: no two calls may have the same one.
    """
    visit.notes.mkdir(parents=True, exist_ok=True)
    callers = Callers(VISITORS)
    callers.start(_visit, visit, name, per_s)
    return callers


def read_notes(folder: Path, name: str = "") -> Seen:
    """Return what the notes in ``folder`` add up to; a half-written line is left out."""
    lines = _lines(folder, name)
    return Seen(
        requests=sum(line["requests"] for line in lines),
        failed=sum(len(line["errors"]) for line in lines),
        events=sum(line["events"] for line in lines),
        impressions=sum(line["impressions"] for line in lines),
        latencies_ms=tuple(each for line in lines for each in line["latencies_ms"]),
        errors=Counter(error for line in lines for error in line["errors"]),
        failed_at_s=tuple(each for line in lines for each in line.get("failed_at_s", ())),
    )


def taken(latencies_ms: Sequence[float]) -> dict[str, float]:
    """Return quantiles of what calls took, and the share that took more than 50 ms."""
    known = np.array(latencies_ms or (0.0,))
    return {
        "p50_ms": round(float(np.quantile(known, 0.5)), 1),
        "p99_ms": round(float(np.quantile(known, 0.99)), 1),
        "slow_share": round(float(np.mean(known > SLOW_MS)), 4),
    }


def _lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob(f"{name}*.jsonl"))
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]


def catalogue_events(now_ms: int) -> Iterator[ItemUpdate]:
    """Yield an update of each item."""
    for number in range(ITEMS):
        genres = [f"genre-{number % 20}", f"genre-{number * 7 % 20}"]
        yield ItemUpdate(
            event_id=f"item-{number}",
            item_id=f"item-{number}",
            occurred_at=now_ms,
            attributes={"genres": genres, "year": str(1960 + number % 60)},
        )


def past_events(now_ms: int, length: int) -> Iterator[Behavior]:
    """Yield ``length`` behaviours of each user: visits cost more as histories fill up."""
    for number in range(USERS):
        for turn in range(length):
            yield Behavior(
                event_id=f"past-{number}-{turn}",
                user_id=f"user-{number}",
                item_id=f"item-{(number * 31 + turn * 7) % ITEMS}",
                action="view",
                occurred_at=now_ms - 60_000 * (length - turn),
            )


def _visit(number: int, visit: Visit, name: str, per_s: float | None) -> None:
    name, pause_s = f"{name}{number}", VISITORS / per_s if per_s else 0.0
    book, chance = _Book(), random.Random(name)
    with (
        RankClient(visit.address) as client,
        EventPublisher(visit.kafka) as publisher,
        (visit.notes / f"{name}.jsonl").open("a") as file,
    ):
        client.rank("user-0", ["item-0"], deadline_s=60.0)  # connects
        wait_for_all()
        began = noted = time.monotonic()
        for turn in count():
            if ends_within(began + turn * pause_s - time.monotonic()):
                break
            for event in _one_visit(client, f"{name}-{turn}", chance, book):
                publisher.publish(event)
            if time.monotonic() > noted + _NOTE_EVERY_S:
                publisher.flush(timeout_s=300.0)  # what is noted has been acknowledged
                noted = time.monotonic()
                book.write(file)
        publisher.flush(timeout_s=300.0)
        book.write(file)


class _Book:
    """What a visitor has not written down yet."""

    def __init__(self) -> None:
        self.events = self.impressions = 0
        self.latencies_ms: list[float] = []
        self.errors: list[str] = []
        self.failed_at_s: list[float] = []

    def write(self, file: Any) -> None:
        """Write a line and clear the book."""
        line = (
            {"at_s": time.time()}
            | vars(self)
            | {"requests": len(self.latencies_ms) + len(self.errors)}
        )
        file.write(json.dumps(line) + "\n")
        file.flush()
        self.__init__()  # type: ignore[misc]


def _one_visit(
    client: RankClient, name: str, chance: random.Random, book: _Book
) -> list[Event]:
    """Ask for a ranking; return the events of what then happened."""
    user, now_ms = f"user-{chance.randrange(USERS)}", time.time_ns() // 1_000_000
    events: list[Event] = list(_behaviors(user, name, now_ms, chance))
    items = [f"item-{each}" for each in chance.sample(range(ITEMS), CANDIDATES)]
    began = time.monotonic()
    try:
        ranking = client.rank(user, items, request_id=name, deadline_s=DEADLINE_S)
    except (ConnectionError, ValueError) as error:  # a person would see a default page
        book.errors.append(str(error))
        book.failed_at_s.append(time.time())
    else:
        book.latencies_ms.append(round(1000.0 * (time.monotonic() - began), 2))
        shown = _shown(ranking, name, now_ms, chance)
        book.impressions += SHOWN
        events += shown
    book.events += len(events)
    return events


def _shown(ranking: Ranking, name: str, now_ms: int, chance: random.Random) -> list[Event]:
    top = ranking.to_show()[:SHOWN]
    shown = ranking.impressions(name, now_ms, top)
    clicks = [
        click_on(each, now_ms + 1, f"c-{name}-{each.position}")
        for each in shown
        if chance.random() < CLICK_RATE
    ]
    return [*shown, *clicks]


def _behaviors(
    user: str, name: str, now_ms: int, chance: random.Random
) -> Iterator[Behavior]:
    for number in range(BEHAVIORS):
        yield Behavior(
            event_id=f"b-{name}-{number}",
            user_id=user,
            item_id=f"item-{chance.randrange(ITEMS)}",
            action="view",
            occurred_at=now_ms - 1000 * (number + 1),
            value=float(chance.randrange(90)),
        )
