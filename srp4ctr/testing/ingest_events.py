"""Draws users with full sequences, and the events that come next.

The mix is a news site's, as EB-NeRD has it: of 100 events 60 are impressions in slates of
8, 5 are clicks on them and 35 other behaviours. Items are Zipf-distributed, users uniform.
"""

import random
import time
from collections.abc import Iterator

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from srp4ctr.streams.events.schema import (
    Behavior,
    Impression,
    UserEvent,
    action_code,
    item_key,
)
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.sequences import (
    EXPOSURE_LENGTH,
    SHOWN,
    SequenceElement,
    sequence_of,
)
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.testing.raw_logs import click_on

USERS, ITEMS, SLATE = 10_000, 5_000, 8
ZIPF = 1.1  # the exponent
_IMPRESSIONS, _CLICKS = 0.6, 0.05
_DAY_MS, _HOUR_MS, _MINUTE_MS = 86_400_000, 3_600_000, 60_000
_SPAN_MS = 2 * _DAY_MS
_READ_S = (5, 300)  # from a slate to a click on it


def begin_ms() -> int:
    """Return when the events begin: two days before an hour ago."""
    return time.time_ns() // 1_000_000 - _SPAN_MS - _HOUR_MS


def history(
    number: int, length: int, start_ms: int, items: int = ITEMS
) -> list[SequenceElement]:
    """Return what user ``number`` did in the ``length`` minutes before ``start_ms``."""
    return [
        SequenceElement(
            occurred_at=start_ms - (length - place) * _MINUTE_MS,
            item_key=item_key(_item((number * 31 + place) % items)),
            action=action_code("view"),
        )
        for place in range(length)
    ]


def past_activity(start_ms: int) -> Activity:
    """Return a user's counters at ``start_ms``."""
    at_ms = start_ms - _MINUTE_MS
    return Activity(
        impressions=(0.5, 4.0, 20.0, 90.0),
        clicks=(0.0, 0.4, 2.0, 9.0),
        counted_at_ms=at_ms,
        first_seen_ms=at_ms - 30 * _DAY_MS,
        version_us=at_ms * 1000,
    )


def past_user(number: int, length: int, start_ms: int, items: int = ITEMS) -> UserState:
    """Return the row of user ``number``: full, with exposures in slates of ``SLATE``."""
    past = past_activity(start_ms)
    shown = [
        SequenceElement(
            occurred_at=start_ms - (EXPOSURE_LENGTH - place // SLATE) * _MINUTE_MS,
            item_key=item_key(_item(number * 37 + place)),
            action=SHOWN,
        )
        for place in range(EXPOSURE_LENGTH)
    ]
    return UserState(
        **structs.asdict(past),
        sequence=sequence_of(history(number, length, start_ms, items)),
        exposures=sequence_of(sorted(shown)),
    )


def draw_events(count: int, seed: int, start_ms: int) -> list[UserEvent]:
    """Return about ``count`` events in event time, in its order."""
    rng = np.random.default_rng(seed)
    events: list[UserEvent] = []
    chance = random.Random(seed)
    for shown in _slates(rng, round(count * _IMPRESSIONS / SLATE), start_ms):
        events += shown
    for impression in chance.sample(events, round(count * _CLICKS)):
        assert isinstance(impression, Impression)
        at_ms = impression.occurred_at + chance.randint(*_READ_S) * 1000
        events.append(click_on(impression, at_ms, f"c{impression.event_id}"))
    events += _behaviors(rng, count - len(events), start_ms)
    return sorted(events, key=lambda event: event.occurred_at)


def user_ids() -> list[str]:
    """Return every user's id, by number."""
    return [_user(number) for number in range(USERS)]


def _slates(
    rng: np.random.Generator, count: int, start_ms: int
) -> Iterator[list[Impression]]:
    popularity = _popularity()
    users, times = _draw(rng, count, start_ms)
    for number, (user, at_ms) in enumerate(zip(users, times, strict=True)):
        items = rng.choice(ITEMS, size=SLATE, replace=False, p=popularity)
        yield [
            Impression(
                event_id=f"i-{number}-{position}-{at_ms}",
                request_id=f"request-{number}-{at_ms}",
                user_id=_user(user),
                item_id=_item(item),
                position=position,
                occurred_at=at_ms,
                model_version="20260101-000000",
                score=round(0.2 / (1 + position), 4),
            )
            for position, item in enumerate(items.tolist())
        ]


def _behaviors(rng: np.random.Generator, count: int, start_ms: int) -> Iterator[Behavior]:
    users, times = _draw(rng, count, start_ms)
    items = rng.choice(ITEMS, size=count, p=_popularity()).tolist()
    for number, (user, item, at_ms) in enumerate(zip(users, items, times, strict=True)):
        yield Behavior(
            event_id=f"b-{number}-{at_ms}",
            user_id=_user(user),
            item_id=_item(item),
            action="view",
            occurred_at=at_ms,
            value=float(number % 90),
        )


def _draw(
    rng: np.random.Generator, count: int, start_ms: int
) -> tuple[list[int], list[int]]:
    """Return ``count`` users and as many times."""
    users = rng.integers(USERS, size=count)
    return users.tolist(), (start_ms + rng.integers(_SPAN_MS, size=count)).tolist()


def _popularity() -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.arange(1, ITEMS + 1, dtype=np.float64) ** -ZIPF
    weights /= weights.sum()
    return weights


def _user(number: int) -> str:
    return f"user-{number}"


def _item(number: int) -> str:
    return f"item-{number % ITEMS}"
