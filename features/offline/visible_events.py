"""Ibis expressions: which events of the log count, and which of them a request can see.

In: the tables of an ``EventLog``. Out: the impressions and clicks that counters count, the
requests with a matured label, their candidates and the last events visible to each.
``point_in_time`` states the rule, and reads them.
"""

from collections.abc import Iterator
from typing import Any

import ibis
from ibis import _

from srp4ctr.features.offline.event_tables import IDENTITY, EventLog, Table
from srp4ctr.streams.events.schema import COUNTED_TYPES, INTERNAL_PREFIX
from srp4ctr.streams.state import duplicates

IS_PERSON = ~_.user_id.startswith(INTERNAL_PREFIX)
BEHAVIOR = ("occurred_at", "item_key", "action_code")  # identity of a behaviour
# In this order within a millisecond: a request does not see the events of its own.
_REQUESTED, _HAPPENED, _KNOWN = range(3)


def _first(events: Table, **columns: Any) -> Table:
    """Return each impression or click once: the first by offset."""
    return events.group_by(*IDENTITY, is_click=_.type == "click").aggregate(
        **{name: value.argmin(_.offset) for name, value in columns.items()}
    )


def distinct_events(log: EventLog) -> Table:
    """Return type, item_key and visible_at of each event once, as of its first arrival.

    Files that are imported again repeat their events at new offsets. User, request and item
    identify an impression and a click, as in the stream; time and action a behaviour.
    """
    is_behavior = _.type == "behavior"
    named = log.events.mutate(
        request_id=ibis.ifelse(is_behavior, ibis.null("string"), _.request_id),
        acted_at=ibis.ifelse(is_behavior, _.occurred_at, ibis.null("int64")),
    )
    identity = (*IDENTITY, "type", "action_code", "acted_at")
    distinct = named.group_by(*identity).aggregate(visible_at=_.visible_at.min())
    return distinct.select("type", "item_key", "visible_at")


def counted_events(log: EventLog) -> Table:
    """Return the impressions and clicks that count: ``streams.state.duplicates`` in Ibis.

    ``tests/features/test_counting.py`` holds the two to each other.
    """
    came = log.events.filter(_.type.isin(COUNTED_TYPES)).select(
        *IDENTITY,
        "partition",
        "offset",
        "occurred_at",
        "visible_at",
        is_click=_.type == "click",
    )
    requests = log.erasures.rename(forgotten_at="offset", whose="user_id")
    is_between = (came.user_id == requests.whose, came.offset > requests.forgotten_at)
    both = came.left_join(requests, (*is_between, came.offset < requests.next_offset))
    left = both.filter(both.occurred_at > both.until_ms.fill_null(0))
    identity = (*IDENTITY, "partition", "is_click")
    before = left.offset.lag().over(ibis.window(group_by=identity, order_by="offset"))
    forgotten_at = left.forgotten_at.fill_null(-1)
    oldest = left.offset - duplicates.DUPLICATE_RECORDS
    is_again = ((before > forgotten_at) & (before >= oldest)).fill_null(False)
    columns = ("user_id", "item_key", "offset", "occurred_at", "visible_at", "is_click")
    return left.mutate(is_again=is_again).filter(~_.is_again).select(*columns)


def shown_impressions(log: EventLog) -> Table:
    """Return the impressions of the requests that have a matured label."""
    shown = log.shown.filter(_.type == "impression", IS_PERSON)
    shown = shown.semi_join(log.labels, ("user_id", "request_id"))
    columns = ("occurred_at", "position", "context", "numbers")
    return log.remembered(_first(shown, **{name: _[name] for name in columns}))


def requests_of(shown: Table) -> Table:
    """Return each request, identified by user_id and request_id, and its time."""
    top = ("occurred_at", "position", "item_key")
    whose = ("user_id", "request_id")
    rank = ibis.row_number().over(ibis.window(group_by=whose, order_by=top))
    requests = shown.mutate(rank=rank).group_by(*whose)
    requests = requests.aggregate(
        at_ms=_.occurred_at.min(),
        context=_.context.max(where=_.rank == 0),  # of the first, be it null
    )
    by_time = ibis.window(order_by=("at_ms", "user_id", "request_id"))
    return requests.mutate(row=ibis.row_number().over(by_time))


def candidates_of(log: EventLog, shown: Table, requests: Table) -> Table:
    """Compute the impressions with a matured label, and the row of each one's request."""
    owners = requests.select("user_id", "request_id", "at_ms", request="row")
    labelled = shown.inner_join(log.labels, IDENTITY)
    labelled = labelled.inner_join(owners, ("user_id", "request_id"))
    columns = ("request", "position", "item_key", "at_ms", "clicked", "numbers", "log_draw")
    in_place = ibis.window(order_by=columns[:3])
    with log.kept(labelled.select(*columns)) as each:
        numbered = each.mutate(row=ibis.row_number().over(in_place))
        return log.keep(numbered.order_by("row"))


def acted_events(log: EventLog) -> Table:
    """Return the events of sequences: clicks and other behaviours."""
    return log.remembered(log.events.filter(_.type.isin(["click", "behavior"])))


def exposures_of(
    log: EventLog, exposed: Table, requests: Table, candidates: Table, length: int
) -> Table:
    """Compute the exposures of candidates that are among their user's last ones."""

    def counted(latest: Table) -> Table:
        before = latest.select("item_key", request="row", shown_ms="occurred_at")
        shown = candidates.inner_join(before, ("request", "item_key"))
        each = shown.group_by("row").aggregate(count=_.count(), last_ms=_.shown_ms.max())
        return each.order_by("row")

    parts = latest_of(log, exposed, requests, length)
    return ibis.union(*(log.keep(counted(part)) for part in parts))


def exposed(counted: Table) -> Table:
    """Return the impressions as behaviours without an action, for ``latest_of``."""
    return counted.filter(~_.is_click).mutate(
        action_code=ibis.literal(0, "int64"), value=ibis.null("float64")
    )


def latest_of(log: EventLog, acted: Table, requests: Table, length: int) -> Iterator[Table]:
    """Yield the last ``length`` of ``acted`` that each request could see, by ``age``.

    Each table has some users' requests: as few as a small memory holds.
    """
    # Numbers instead of ids, which are compared in every step: a user's first request.
    users = requests.group_by("user_id").aggregate(user=_.row.min())
    requests = requests.inner_join(users, "user_id").select("user", "row", "at_ms")
    with log.kept(_placed(acted.inner_join(users, "user_id"))) as placed:
        counts = [log.rows(each.count()).as_py() for each in (requests, placed)]
        parts = log.parts("user", counts[0] * length + 2 * counts[1])
        for part in parts:
            some = placed.filter(part)
            reach = _reach(some, requests.filter(part))
            with log.kept(reach, is_part=len(parts) > 1) as reach:
                yield _latest(some, reach, length)


def _latest(placed: Table, reach: Table, length: int) -> Table:
    # At most happened - known of them are not visible yet; of the rest the last L are.
    first = ibis.greatest(reach.known - length, 0)
    wanted = reach.mutate(place=ibis.range(first, reach.happened).unnest())
    seen = wanted.inner_join(placed, ("user", "place")).filter(_.visible_at < _.at_ms)
    latest = seen.group_by("row", "at_ms", "place", *BEHAVIOR).aggregate(
        value=_.value.max()
    )
    newest_first = ibis.window(group_by="row", order_by=ibis.desc("place"))
    latest = latest.mutate(age=ibis.row_number().over(newest_first))
    return latest.filter(_.age < length)


def _placed(acted: Table) -> Table:
    """Return the behaviours with their places, 0, 1, … in their users' histories.

    Equal ones with several values share a place: the value depends on the request's time.
    """
    once = acted.group_by("user", *BEHAVIOR, "value").aggregate(
        visible_at=_.visible_at.min()
    )
    in_order = ibis.window(group_by="user", order_by=BEHAVIOR)
    return once.mutate(place=ibis.dense_rank().over(in_order))


def _reach(placed: Table, requests: Table) -> Table:
    """Return for each request how many behaviours had happened before, and were known."""
    each = placed.group_by("user", "place").aggregate(
        occurred_at=_.occurred_at.min(), visible_at=_.visible_at.min()
    )
    steps = ibis.union(
        requests.select("user", "at_ms", "row", step=_REQUESTED),
        each.select("user", at_ms="occurred_at", row=ibis.null("int64"), step=_HAPPENED),
        each.select("user", at_ms="visible_at", row=ibis.null("int64"), step=_KNOWN),
    )
    so_far = ibis.cumulative_window(group_by="user", order_by=("at_ms", "step"))
    running = steps.mutate(
        happened=_.user.count(where=_.step == _HAPPENED).over(so_far),
        known=_.user.count(where=_.step == _KNOWN).over(so_far),
    )
    return running.filter(_.step == _REQUESTED)
