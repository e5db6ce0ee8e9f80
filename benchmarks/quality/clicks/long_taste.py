"""Generates a log whose clicks depend on tastes of long ago: is a long history read?

Of each user's first behaviours a quarter is of the user's two favourite categories; of the
newest, none more than by chance, as if the season had changed. Then comes one request of
items that nobody has met before, clicked more often if they are of a favourite. So only the
categories of old behaviours tell: no earlier click, no other attribute. All draws are of
one seed.

    python -m benchmarks click_quality --data long-taste --length 250 --no-frozen \\
        --variants srp4ctr,srp4ctr-newest --set model.encoded_length=50 \\
        --set pretraining=none
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.raw_logs import click_on
from srp4ctr.streams.events.schema import Behavior, Click, Impression, ItemUpdate, UserEvent

NAME = "long taste"
USERS, ITEMS, CATEGORIES, FAVOURITES = 12_000, 2_000, 50, 2
WITH_TASTE, WITHOUT_TASTE = 190, 60  # behaviours of each user, the older first
LIKED_SHARE = 0.25  # of the older ones; 0.4 of the candidates
SLATE, SHOWN_SHARE = 20, 0.4
CLICK_RATE, LIKED_RATE = 0.18, 0.62
MET, NEW = "met", "new"
DAY_MS, CLICKED_AFTER_MS = 86_400_000, 60_000
START_MS = 1_700_006_400_000
REQUESTS_FROM_MS = START_MS + 80 * DAY_MS  # within the sequences' 90 days
JUDGED_FROM_MS = REQUESTS_FROM_MS + DAY_MS * 7 // 10
_Int64s = NDArray[np.int64]


def item_updates() -> list[ItemUpdate]:
    """Return each item with its category."""
    return [
        ItemUpdate(
            event_id="u",
            item_id=f"{kind}{item}",
            occurred_at=START_MS,
            attributes={"category": f"c{item % CATEGORIES}"},
        )
        for item in range(ITEMS)
        for kind in (MET, NEW)
    ]


def events() -> Iterator[UserEvent]:
    """Yield all events, one user after another."""
    draw = np.random.default_rng(7)
    for user in range(USERS):
        favourites = draw.choice(CATEGORIES, FAVOURITES, replace=False)
        yield from _behaviors(f"u{user}", favourites, draw)
        yield from _request(f"u{user}", favourites, draw)


def best_auc() -> float:
    """Return the AUC of the true probabilities."""
    liked = SHOWN_SHARE + (1.0 - SHOWN_SHARE) * FAVOURITES / CATEGORIES
    clicked = liked * LIKED_RATE, (1.0 - liked) * CLICK_RATE
    missed = liked * (1.0 - LIKED_RATE), (1.0 - liked) * (1.0 - CLICK_RATE)
    pairs = sum(clicked) * sum(missed)
    won = clicked[0] * missed[1]
    tied = clicked[0] * missed[0] + clicked[1] * missed[1]
    return (won + tied / 2.0) / pairs


def _items(
    count: int, share: float, favourites: _Int64s, draw: np.random.Generator
) -> tuple[_Int64s, NDArray[np.bool_]]:
    """Return ``count`` items, a ``share`` of them of favourites, and which are liked."""
    items = draw.integers(0, ITEMS, count)
    of_favourites = draw.choice(favourites, count)
    chosen = draw.random(count) < share
    kind = draw.integers(0, ITEMS // CATEGORIES, count) * CATEGORIES
    items = np.where(chosen, kind + of_favourites, items)
    return items, np.isin(items % CATEGORIES, favourites)


def _behaviors(
    user: str, favourites: _Int64s, draw: np.random.Generator
) -> Iterator[Behavior]:
    older, _ = _items(WITH_TASTE, LIKED_SHARE, favourites, draw)
    newer, _ = _items(WITHOUT_TASTE, 0.0, favourites, draw)
    days = [draw.uniform(0.0, 40.0, WITH_TASTE), draw.uniform(70.0, 80.0, WITHOUT_TASTE)]
    times = START_MS + (np.sort(np.concatenate(days)) * DAY_MS).astype(np.int64)
    for item, at_ms in zip(np.concatenate([older, newer]).tolist(), times, strict=True):
        yield Behavior(
            event_id="b",
            user_id=user,
            item_id=f"{MET}{item}",
            action="view",
            occurred_at=int(at_ms),
        )


def _request(
    user: str, favourites: _Int64s, draw: np.random.Generator
) -> Iterator[Impression | Click]:
    at_ms = REQUESTS_FROM_MS + math.floor(draw.random() * DAY_MS)
    items, liked = _items(SLATE, SHOWN_SHARE, favourites, draw)
    clicked = draw.random(SLATE) < np.where(liked, LIKED_RATE, CLICK_RATE)
    _, first = np.unique(items, return_index=True)  # an item is shown once
    for place in np.sort(first).tolist():
        shown = Impression(
            event_id="i",
            request_id=f"{user}-request",
            user_id=user,
            item_id=f"{NEW}{items[place]}",
            position=place,
            occurred_at=at_ms,
        )
        yield shown
        if clicked[place]:
            yield click_on(shown, at_ms + CLICKED_AFTER_MS, "c")
