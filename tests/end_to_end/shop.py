"""A small shop's events with a planted taste: each user clicks one colour, mostly."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import Behavior, Click, Event, Impression, ItemUpdate

COLOURS = ("red", "green", "blue")
NUM_ITEMS, NUM_USERS, SLATES, SLATE_SIZE = 30, 40, 8, 5
# An hour ago: an older sequence would be served as stale after 90 days.
START_MS = time.time_ns() // 1_000_000 - 3_600_000
BROKEN = (
    b'{"type": "click", "event_id": "cut off',
    b'{"type": "wish", "event_id": "e", "user_id": "u", "item_id": "i"}',
    b'{"type": "behavior", "event_id": "e", "user_id": "u", "action": "view",'
    b' "occurred_at": 1760000000000}',
    b'{"type": "behavior", "event_id": "e", "user_id": "u", "item_id": "i",'
    b' "action": "view", "occurred_at": 1760000000}',
    b'{"type": "behavior", "event_id": "e", "user_id": "u", "item_id": "i",'
    b' "action": "view", "occurred_at": 32503680000000}',
    b'{"type": "behavior", "event_id": "e", "user_id": "u", "item_id": "'
    + b"x" * (1 << 20)
    + b'", "action": "view", "occurred_at": 1760000000000}',
)


def colour(item: int) -> str:
    """Return the item's colour."""
    return COLOURS[item % len(COLOURS)]


def events() -> Iterator[Event]:
    """Yield the shop's events in the order of time, a user's slates a minute apart."""
    for item in range(NUM_ITEMS):
        yield ItemUpdate(
            event_id=f"item-{item}",
            item_id=f"item-{item}",
            occurred_at=START_MS,
            attributes={"colour": colour(item), "title": f"Thing {item}"},
        )
    chance = random.Random(0)
    for slate in range(SLATES):
        for user in range(NUM_USERS):
            yield from _visit(user, slate, chance)


def _visit(user: int, slate: int, chance: random.Random) -> Iterator[Event]:
    at_ms = START_MS + 60_000 * (slate + 1) + user
    owner, request = f"user-{user}", f"r-{user}-{slate}"
    shown = chance.sample(range(NUM_ITEMS), SLATE_SIZE)
    for position, item in enumerate(shown):
        yield Impression(
            event_id=f"i-{request}-{item}",
            request_id=request,
            user_id=owner,
            item_id=f"item-{item}",
            position=position,
            occurred_at=at_ms,
        )
    for item in shown:
        if chance.random() < (0.9 if colour(item) == COLOURS[user % 3] else 0.1):
            yield Click(
                event_id=f"c-{request}-{item}",
                request_id=request,
                user_id=owner,
                item_id=f"item-{item}",
                occurred_at=at_ms + 1_000,
            )
    yield Behavior(
        event_id=f"b-{request}",
        user_id=owner,
        item_id=f"item-{shown[0]}",
        action="view",
        occurred_at=at_ms + 2_000,
        value=float(chance.randrange(60)),
    )


def write(path: Path, broken: tuple[bytes, ...] = BROKEN) -> int:
    """Write the events and the ``broken`` lines as JSON lines; return how many are good."""
    lines = [encode(event) for event in events()]
    path.write_bytes(b"\n".join([*lines[:100], *broken, *lines[100:]]) + b"\n")
    return len(lines)
