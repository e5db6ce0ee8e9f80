"""Clicks → slates of a click and sampled negatives, where a log lacks impressions.

Each first click of a user on an item that others had clicked becomes a slate: the item,
and items clicked shortly before, the more often the likelier, that the user had not used.
Only what was known before the click decides: an item that the user will click later can be
a negative, else its absence would predict that click. The draws follow from the click's
event_id. Clicked and drawn items come from the same pool: a repeated click, or the first
on an item at all, makes no slate, for its item would be the only one used, or new.

Sampled slates are no events: no counter and no exposure has them, as in serving.
"""

from dataclasses import replace
from typing import Any

import ibis
from ibis import _

from srp4ctr.features.offline.event_tables import EventLog, Table
from srp4ctr.features.offline.visible_events import IS_PERSON, acted_events

NEGATIVES = 9
RECENT_CLICKS = 10_000  # what is popular at a moment: the clicks just before it
_DRAWS = 24  # more than NEGATIVES: some are drawn twice, or have been used
_PRIME = (1 << 31) - 1
_STEP, _START = 1_103_515_245, 12_345
_HEX = "0123456789abcdef"
_DIGITS = 7  # 28 bits: their products stay below 2^63
_SLATE = ("user_id", "request_id")
_REQUESTED, _KNOWN = range(2)  # in this order within a millisecond


def with_sampled_slates(log: EventLog) -> EventLog:
    """Return ``log`` with sampled slates as the impressions and labels to train on."""
    clicks = log.events.filter(_.type == "click", IS_PERSON)
    sampled = log.keep(sampled_slates(log.remembered(clicks), acted_events(log)))
    shown = sampled.mutate(
        type=ibis.literal("impression"),
        context=ibis.null("string"),
        numbers=ibis.null("string"),
        offset=ibis.literal(0, "int64"),
    )
    return replace(log, shown=shown, labels=sampled.select(*_SLATE, "item_key", "clicked"))


def sampled_slates(clicks: Table, acted: Table) -> Table:
    """Return user_id, request_id, item_key, occurred_at, position and clicked.

    ``clicks`` has event_id, which becomes the request_id, user_id, item_key, occurred_at
    and visible_at; ``acted`` the same without event_id, of all behaviours.
    """
    once = clicks.group_by("user_id", "item_key", "event_id").aggregate(
        occurred_at=_.occurred_at.min(), visible_at=_.visible_at.min()
    )
    used = acted.group_by("user_id", "item_key").aggregate(used_at=_.visible_at.min())
    requests = _counted(_first_clicks(once, used), once)
    drawn = _drawn(requests, once, used)
    clicked = requests.select(*_SLATE, "item_key", "occurred_at", "draw", clicked=True)
    both = ibis.union(clicked.semi_join(drawn, _SLATE), drawn)
    # The order turns with the click: an item has no place of its own.
    turned = (_.item_key.abs() % _PRIME + _.draw) % _PRIME
    in_turn = ibis.window(group_by=_SLATE, order_by=("turned", "item_key"))
    placed = both.mutate(turned=turned).mutate(position=ibis.row_number().over(in_turn))
    return placed.select(*_SLATE, "item_key", "occurred_at", "position", "clicked")


def _first_clicks(once: Table, used: Table) -> Table:
    """Return users' first clicks on items that others had clicked, and they not used."""
    by_time = ibis.window(
        group_by=("user_id", "item_key"), order_by=("occurred_at", "event_id")
    )
    first = once.mutate(rank=ibis.row_number().over(by_time)).filter(_.rank == 0)
    first = first.left_join(used, ("user_id", "item_key"))
    first = first.filter(_.used_at >= _.occurred_at)
    pooled = once.group_by("item_key").aggregate(pooled_at=_.visible_at.min())
    first = first.inner_join(pooled, "item_key").filter(_.pooled_at < _.occurred_at)
    return first.select(
        "user_id",
        "item_key",
        "occurred_at",
        request_id="event_id",
        draw=_number(first.event_id),
    )


def _number(event_id: Any) -> Any:
    """Return a number of 28 bits that follows from ``event_id``, on any engine."""
    digest = event_id.hexdigest("md5")
    total = ibis.literal(0, "int64")
    for place in range(_DIGITS):
        digit = ibis.literal(_HEX).find(digest.substr(place, 1))
        total = total * 16 + digit.cast("int64")
    return total


def _counted(first: Table, once: Table) -> Table:
    """Return the first clicks, with how many clicks were known before each."""
    requested = first.mutate(step=_REQUESTED, at_ms=_.occurred_at)
    none = {name: ibis.null(dtype) for name, dtype in first.schema().items()}
    known = once.select(**none, step=_KNOWN, at_ms=once.visible_at)
    so_far = ibis.cumulative_window(order_by=("at_ms", "step"))
    running = ibis.union(requested, known.select(*requested.columns)).mutate(
        known=(_.step == _KNOWN).sum().over(so_far)
    )
    return running.filter(_.step == _REQUESTED, _.known > 0).drop("step", "at_ms")


def _drawn(requests: Table, once: Table, used: Table) -> Table:
    """Return up to ``NEGATIVES`` items of each slate, no two alike, with its columns."""
    by_time = ("visible_at", "user_id", "item_key", "event_id")
    pool = once.select(
        place=ibis.row_number().over(ibis.window(order_by=by_time)), drawn_key=_.item_key
    )
    turn = ibis.range(0, _DRAWS).unnest()
    draws = requests.mutate(turn=turn).mutate(turn=_.turn.cast("int64"))
    # Twice, as multiples of one number would lie at equal distances.
    mixed = (draws.draw + (draws.turn + 1) * _STEP) % _PRIME
    mixed = (mixed * (_STEP + draws.turn * _START)) % _PRIME
    back = mixed % ibis.least(draws.known, RECENT_CLICKS)
    drawn = draws.mutate(place=draws.known - 1 - back).inner_join(pool, "place")
    drawn = drawn.filter(_.drawn_key != _.item_key)
    seen = used.rename(user="user_id", used_key="item_key")
    drawn = drawn.left_join(
        seen, (drawn.user_id == seen.user, drawn.drawn_key == seen.used_key)
    )
    unused = drawn.filter(drawn.used_at.isnull() | (drawn.used_at >= drawn.occurred_at))
    distinct = unused.group_by(*_SLATE, "occurred_at", "draw", "drawn_key").aggregate(
        turn=_.turn.min()
    )
    in_turn = ibis.window(group_by=_SLATE, order_by="turn")
    ranked = distinct.mutate(rank=ibis.row_number().over(in_turn))
    kept = ranked.filter(_.rank < NEGATIVES)
    return kept.select(
        *_SLATE, "occurred_at", "draw", item_key="drawn_key", clicked=False
    ).select(*_SLATE, "item_key", "occurred_at", "draw", "clicked")
