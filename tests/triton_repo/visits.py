"""Users of the replayed stream: slates that change every row, then traffic."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.events.schema import Event
from tests.builders import a_behavior, a_click, a_forget, an_impression, an_item
from tests.live_stream import LiveStream

USERS = [f"user-{number}" for number in range(6)]
ITEMS = [f"item-{number}" for number in range(8)]
COLOURS = ("red", "green", "blue")
LONG_AGO_MS = 100 * 86_400_000  # beyond the time to live


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def slates(step: int, rng: random.Random) -> Iterator[Event]:
    """Yield what is shown and clicked in ``step``, some of it twice, some of it late."""
    for user in USERS[:5]:
        for slate in range(4):
            at_ms = now_ms() - rng.choice([0, 0, 3_600_000])
            names = {"user_id": user, "request_id": f"r-{step}-{slate}"}
            for position, item in enumerate(rng.sample(ITEMS, 3)):
                shown = an_impression(item, at_ms=at_ms, position=position, **names)
                click = a_click(item, at_ms=at_ms + 50, **names)
                more: list[tuple[Event, ...]] = [(), (shown,), (click,), (click, click)]
                yield from (shown, *rng.choice(more))
    yield a_behavior("item-1", at_ms=now_ms() - LONG_AGO_MS + step, user_id=USERS[5])
    if step == 2:
        yield a_forget(user_id=USERS[0], at_ms=now_ms())
    for item in ITEMS[step::2]:
        yield an_item(item, at_ms=now_ms(), colour=rng.choice(COLOURS), title=item)


@contextmanager
def traffic(live: LiveStream, seed: int) -> Iterator[None]:
    """Publish events meanwhile, but show no item that requests rank.

    Sequences and users' counters change; those of the ranked items do not.
    """
    stop = threading.Event()

    def publish() -> None:
        rng = random.Random(seed)
        with EventPublisher(live.kafka) as publisher:
            for number in itertools.count():
                at_ms = now_ms() - rng.choice([0, 0, 0, 60_000])
                user, value = rng.choice(USERS[:5]), rng.choice([None, 2.0, 7.5])
                names = {"user_id": user, "event_id": f"t-{seed}-{number}"}
                slate = {**names, "request_id": f"t-{seed}-{number // 9}"}
                done: list[Event] = [
                    a_behavior(rng.choice(ITEMS), at_ms=at_ms, value=value, **names),
                    an_impression("elsewhere", at_ms=at_ms, **slate),
                    a_click("elsewhere", at_ms=at_ms, **slate),
                ]
                publisher.publish(rng.choice(done))
                if stop.wait(0.01):
                    return

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
