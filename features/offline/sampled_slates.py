"""Clicks → slates of a click and sampled negatives, where a log lacks impressions.

Each first click of a user on an item that others had clicked becomes a slate: the item,
and items clicked shortly before, the more often the likelier, that the user had not used.
Only what was known before the click decides: an item that the user will click later can be
a negative, else its absence would predict that click. The draws follow from the click's
event_id. Clicked and drawn items come from the same pool: a repeated click, or the first
on an item at all, makes no slate, for its item would be the only one used, or new.

Popular items are drawn more often, so a model of the slates alone would not know what is
popular. Each candidate has the log of its draw probability, by which training corrects
its logit.

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
_STEP = 1_103_515_245
_START = 12_345
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
    labels = sampled.select(*_SLATE, "item_key", "clicked", "log_draw")
    return replace(log, shown=shown, labels=labels)


def sampled_slates(clicks: Table, acted: Table) -> Table:
    """Return user_id, request_id, item_key, occurred_at, position, clicked and log_draw.

    log_draw is the log of the probability that the slate draws the item; of the clicked
    item too, as if it could be drawn. ``clicks`` has event_id, which becomes the
    request_id, user_id, item_key, occurred_at and visible_at; ``acted`` the same without
    event_id, of all behaviours.
    """
    once = clicks.group_by("user_id", "item_key", "event_id").aggregate(
        occurred_at=_.occurred_at.min(), visible_at=_.visible_at.min()
    )
    used = acted.group_by("user_id", "item_key").aggregate(used_at=_.visible_at.min())
    requests = _counted(_first_clicks(once, used), once)
    pool = _pool(once)
    drawn = _drawn(requests, pool, used)
    tries = drawn.group_by(*_SLATE).aggregate(
        tries=ibis.ifelse(_.count() < NEGATIVES, _DRAWS, _.turn.max() + 1)
    )
    clicked = requests.select(*_SLATE, "item_key", "occurred_at", "draw", "known")
    clicked = clicked.mutate(clicked=True).inner_join(tries, _SLATE)
    negatives = drawn.drop("turn").inner_join(tries, _SLATE)
    both = _with_log_draw(ibis.union(clicked, negatives.select(*clicked.columns)), pool)
    # The order turns with the click: an item has no place of its own.
    turned = (_.item_key.abs() % _PRIME + _.draw) % _PRIME
    in_turn = ibis.window(group_by=_SLATE, order_by=("turned", "item_key"))
    placed = both.mutate(turned=turned).mutate(position=ibis.row_number().over(in_turn))
    columns = ("item_key", "occurred_at", "position", "clicked", "log_draw")
    return placed.select(*_SLATE, *columns)


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


def _pool(once: Table) -> Table:
    """Return the clicks that items are drawn from: their places by time, and drawn_key."""
    by_time = ("visible_at", "user_id", "item_key", "event_id")
    return once.select(
        place=ibis.row_number().over(ibis.window(order_by=by_time)), drawn_key=_.item_key
    )


def _drawn(requests: Table, pool: Table, used: Table) -> Table:
    """Return up to ``NEGATIVES`` items of each slate, no two alike, with its columns.

    ``turn`` is the first draw of the item.
    """
    turn = ibis.range(0, _DRAWS).unnest()
    draws = requests.mutate(turn=turn).mutate(turn=_.turn.cast("int64"))
    # Twice, as multiples of one number would lie at equal distances.
    mixed = (draws.draw + (draws.turn + 1) * _STEP) % _PRIME
    mixed = (mixed * (_STEP + draws.turn * _START)) % _PRIME
    back = mixed % _recent(draws)
    drawn = draws.mutate(place=draws.known - 1 - back).inner_join(pool, "place")
    drawn = drawn.filter(_.drawn_key != _.item_key)
    seen = used.rename(user="user_id", used_key="item_key")
    drawn = drawn.left_join(
        seen, (drawn.user_id == seen.user, drawn.drawn_key == seen.used_key)
    )
    unused = drawn.filter(drawn.used_at.isnull() | (drawn.used_at >= drawn.occurred_at))
    of_slate = (*_SLATE, "occurred_at", "draw", "known")
    distinct = unused.group_by(*of_slate, "drawn_key").aggregate(turn=_.turn.min())
    in_turn = ibis.window(group_by=_SLATE, order_by="turn")
    ranked = distinct.mutate(rank=ibis.row_number().over(in_turn))
    kept = ranked.filter(_.rank < NEGATIVES)
    return kept.select(*of_slate, "turn", item_key="drawn_key", clicked=False)


def _recent(requests: Table) -> Any:
    """Return from how many of the newest known clicks each request draws."""
    return ibis.least(requests.known, RECENT_CLICKS)


def _with_log_draw(candidates: Table, pool: Table) -> Table:
    """Return ``candidates`` with log_draw instead of known and tries.

    An item with the share q of the recent clicks is among ``tries`` draws with the
    probability 1 - (1 - q)^tries. One without any counts as clicked once.
    """
    recent = _recent(candidates)
    identity = (*_SLATE, "item_key")
    # Clicks before a place, at both ends of what is drawn from.
    ends = [
        candidates.select(*identity, place=place, sign=ibis.literal(sign, "int64"))
        for place, sign in ((candidates.known, 1), (candidates.known - recent, -1))
    ]
    none = {name: ibis.null(dtype) for name, dtype in ends[0].schema().items()}
    clicks = pool.select(**none | {"item_key": pool.drawn_key, "place": pool.place})
    steps = ibis.union(*ends, clicks.select(*ends[0].columns))
    # An end comes before the click at its place.
    so_far = ibis.cumulative_window(
        group_by="item_key", order_by=("place", steps.sign.isnull())
    )
    running = steps.mutate(before=_.sign.isnull().sum().over(so_far))
    counts = running.filter(_.sign.notnull()).group_by(*identity)
    counts = counts.aggregate(count=(_.sign * _.before).sum())
    counted = candidates.inner_join(counts, identity)
    share = ibis.greatest(counted["count"], 1) / _recent(counted).cast("float64")
    chance = 1.0 - (1.0 - share) ** counted.tries.cast("float64")
    return counted.mutate(log_draw=chance.ln()).drop("known", "tries", "count")
