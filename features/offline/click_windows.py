"""Clicks of all users on an item, in windows before an instant: exact counts, by Ibis.

A click counts at t if it was visible before t, and in a window of w if it occurred at
t - w or later, too. So each click is a step up where it becomes visible and, in a window,
a step down where it leaves it: a running sum by item, without joining every click with
every instant. Clicks that were old at the first instant are summed beforehand.
"""

from collections.abc import Mapping
from typing import Any

import ibis
from ibis import _

from srp4ctr.features.offline.event_tables import EventLog, Table

WINDOWS_MS: Mapping[str, int] = {"clicks_2h": 7_200_000, "clicks_24h": 86_400_000}
ALL = "clicks_all"
COUNTS = (*WINDOWS_MS, ALL)
_STEPS_OF_A_CLICK = 1 + len(WINDOWS_MS)


def click_counts(log: EventLog, clicks: Table, instants: Table) -> Table:
    """Compute row and ``COUNTS`` of each instant, by ``row``.

    ``clicks`` has item_key, occurred_at and visible_at; ``instants``, at least one, row,
    item_key and at_ms. As many steps at once as the engine's memory holds.
    """
    reach = log.rows(instants.aggregate(first=_.at_ms.min(), last=_.at_ms.max()))
    first_ms, last_ms = (reach[name][0].as_py() for name in ("first", "last"))
    wanted = clicks.semi_join(instants, "item_key").filter(_.visible_at < last_ms)
    is_old = (wanted.visible_at < first_ms) & (
        wanted.occurred_at < first_ms - max(WINDOWS_MS.values())
    )
    with log.kept(wanted.filter(~is_old)) as recent:
        counts = [log.rows(each.count()).as_py() for each in (instants, recent)]
        parts = log.parts("item_key", counts[0] + _STEPS_OF_A_CLICK * counts[1])
        tables = []
        for part in parts:
            at = instants.filter(part)
            steps = (_old(wanted.filter(is_old, part)), *_steps(recent.filter(part)))
            tables.append(log.keep(_running(at, steps).order_by("row")))
    return ibis.union(*tables)


def _old(clicks: Table) -> Table:
    """Return the clicks earlier than all instants and windows, as one step of each item."""
    counted = clicks.group_by("item_key").aggregate(**{ALL: _.count()})
    return _step(counted, ibis.literal(0, "int64"), {ALL: counted[ALL]})


def _steps(clicks: Table) -> list[Table]:
    """Return where ``clicks`` become visible, and where they leave each window."""
    one, entered = ibis.literal(1, "int64"), {}
    left = []
    for name, window_ms in WINDOWS_MS.items():
        end_ms = clicks.occurred_at + window_ms
        # One that is known only after the window has never been in it.
        entered[name] = (clicks.visible_at < end_ms).cast("int64")
        left.append(_step(clicks, end_ms, {name: -entered[name]}))
    return [_step(clicks, clicks.visible_at, {ALL: one, **entered}), *left]


def _step(table: Table, at_ms: Any, added: Mapping[str, Any]) -> Table:
    none = ibis.literal(0, "int64")
    return table.select(
        "item_key",
        at_ms=at_ms,
        row=ibis.null("int64"),
        **{name: added.get(name, none) for name in COUNTS},
    )


def _running(instants: Table, steps: tuple[Table, ...]) -> Table:
    """Return the sums of ``steps`` before each of ``instants``."""
    at = instants.select("item_key", "at_ms", "row").mutate(
        **dict.fromkeys(COUNTS, ibis.literal(0, "int64"))
    )
    every = ibis.union(at, *(step.select(*at.columns) for step in steps))
    # An instant comes before the steps of its millisecond: it does not see them.
    so_far = ibis.cumulative_window(
        group_by="item_key", order_by=("at_ms", every.row.isnull())
    )
    sums = {name: every[name].sum().over(so_far).cast("int64") for name in COUNTS}
    return every.mutate(**sums).filter(_.row.notnull()).select("row", *COUNTS)
