"""Events for a stack in containers: visits of made-up users, as JSON lines."""

import random
from collections.abc import Iterator
from pathlib import Path

from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import Behavior, Click, Event, Impression, ItemUpdate

USERS, ITEMS, SLATE = 60, 200, 5
_START_MS = 1_790_000_000_000
_MINUTE_MS = 60_000


def write_visits(path: Path, first: int, visits: int) -> int:
    """Write ``visits`` visits from number ``first`` on; return how many user events.

    The first also has an update of every item, on the other topic.
    """
    events = [each for n in range(first, first + visits) for each in visit(n)]
    updates = items() if first == 0 else []
    lines = [encode(each) for each in (*updates, *events)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return len(events)


def item_of(number: int) -> str:
    """Return an item's id; MovieLens, whose answers are compared, has no such item."""
    return f"made-up-{number}"


def items() -> list[Event]:
    """Return an update of every item."""
    return [
        ItemUpdate(
            event_id=f"i{n}",
            item_id=item_of(n),
            occurred_at=_START_MS,
            attributes={"genre": f"g{n % 7}"},
        )
        for n in range(ITEMS)
    ]


def visit(number: int) -> Iterator[Event]:
    """Yield a slate of impressions, a click on one of it, and a view of another item."""
    random_of = random.Random(number)
    user, request = f"u{random_of.randrange(USERS)}", f"r{number}"
    at_ms = _START_MS + number * _MINUTE_MS
    shown = [item_of(n) for n in random_of.sample(range(ITEMS), SLATE)]
    for position, item in enumerate(shown):
        yield Impression(
            event_id=f"{request}-{position}",
            request_id=request,
            user_id=user,
            item_id=item,
            position=position,
            occurred_at=at_ms,
        )
    yield Click(
        event_id=f"{request}-c",
        request_id=request,
        user_id=user,
        item_id=random_of.choice(shown),
        occurred_at=at_ms + 5_000,
    )
    yield Behavior(
        event_id=f"{request}-v",
        user_id=user,
        item_id=item_of(random_of.randrange(ITEMS)),
        action="view",
        occurred_at=at_ms + 9_000,
    )
