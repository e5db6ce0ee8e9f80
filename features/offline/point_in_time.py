"""The event log → point-in-time correct features of each request, for training.

An event is visible to a request at time t iff it happened and was known before t:
``max(occurred_at, created_at) < t``, where t is the earliest ``occurred_at`` of the
request's impressions. So the request's own impressions and clicks are not visible, nor are
events that were still to arrive. The Ibis expressions return what the reducers of
``streams`` would have stored.
"""

from dataclasses import dataclass, fields
from typing import Any

import ibis
import numpy as np
from ibis import _
from numpy.typing import NDArray

from srp4ctr.features.offline.counters_as_of import counted_events, counts_at
from srp4ctr.features.offline.event_tables import IDENTITY, EventLog, Table
from srp4ctr.features.tensors.transforms import (
    ActivityArrays,
    ItemExposures,
    SequenceArrays,
    empty_sequences,
)
from srp4ctr.streams.events.schema import INTERNAL_PREFIX
from srp4ctr.streams.state.exposures import EXPOSURE_LENGTH

Int64s = NDArray[np.int64]
Objects = NDArray[np.object_]

_MS_PER_DAY = 86_400_000
_IS_PERSON = ~_.user_id.startswith(INTERNAL_PREFIX)
_BEHAVIOR = ("occurred_at", "item_key", "action_code")  # identity of a behaviour
# In this order within a millisecond: a request does not see the events of its own.
_REQUESTED, _HAPPENED, _KNOWN = range(3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestSnapshots:
    """R requests by time, with M candidates that lie together by request and position."""

    user_ids: Objects  # (R,)
    times_ms: Int64s
    contexts: Objects
    """JSON or None, of the request's first impression."""
    sequences: SequenceArrays  # (R, L)
    user_activity: ActivityArrays  # (R,), as of the request's time
    candidate_requests: Int64s  # (M,): row of its request, ascending
    candidate_item_keys: Int64s
    candidate_positions: Int64s
    candidate_clicked: NDArray[np.bool_]
    """The last label in the log: a click after the window counts."""
    candidate_activity: ActivityArrays  # (M,), as of the request's time
    candidate_exposures: ItemExposures  # (M,), to the request's user

    def from_time(self, start_ms: int) -> "RequestSnapshots":
        """Return the requests from ``start_ms`` on, and their candidates."""
        first = int(np.searchsorted(self.times_ms, start_ms))
        return self.take(np.arange(first, len(self.times_ms)))

    def take(self, requests: Int64s) -> "RequestSnapshots":
        """Return the requests at these rows, ascending, and their candidates."""
        place = np.full(len(self.times_ms), -1)
        place[requests] = np.arange(len(requests))
        candidates = np.flatnonzero(place[self.candidate_requests] >= 0)
        kept: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            rows = candidates if each.name.startswith("candidate_") else requests
            is_array = isinstance(value, np.ndarray)
            kept[each.name] = value[rows] if is_array else value.take(rows)
        kept["candidate_requests"] = place[kept["candidate_requests"]]
        return RequestSnapshots(**kept)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserHistories:
    """All distinct behaviours of U users, oldest first, one user after another."""

    user_ids: Objects  # (U,), ascending
    starts: Int64s
    """(U + 1,): user u's behaviours are ``starts[u]:starts[u + 1]``."""
    behaviors: SequenceArrays  # (K,)


def snapshot(
    log: EventLog,
    length: int,
    ttl_days: float,
    exposure_length: int = EXPOSURE_LENGTH,
) -> RequestSnapshots:
    """Return the requests of the log that have a matured label, and their features.

    ``length`` is L, ``exposure_length`` is W. Behaviours expire after ``ttl_days``, as in
    serving.
    """
    shown = log.keep(_shown(log))
    requests = log.keep(_requests(shown))
    candidates = log.keep(_candidates(log, shown, requests))
    counted = log.keep(counted_events(log))
    remembered = log.keep(log.remembered(counted))
    found, offered = (log.rows(t.order_by("row")) for t in (requests, candidates))
    return RequestSnapshots(
        user_ids=_objects(found["user_id"]),
        times_ms=found["at_ms"].to_numpy(),
        contexts=_objects(found["context"]),
        sequences=_sequences_at(log, requests, length, round(ttl_days * _MS_PER_DAY)),
        user_activity=counts_at(
            log,
            log.since_erasure(remembered).rename(owner="user_id"),
            requests.select("row", "at_ms", owner="user_id"),
        ),
        candidate_requests=offered["request"].to_numpy(),
        candidate_item_keys=offered["item_key"].to_numpy(),
        candidate_positions=offered["position"].to_numpy(),
        candidate_clicked=offered["clicked"].to_numpy(),
        candidate_activity=counts_at(
            log,
            counted.rename(owner="item_key"),
            candidates.select("row", "at_ms", owner="item_key"),
        ),
        candidate_exposures=_exposures_at(
            log, _exposed(remembered), requests, candidates, exposure_length
        ),
    )


def request_rows(log: EventLog) -> dict[tuple[str, str], int]:
    """Return the row of each user's request, by its request_id, in ``snapshot``."""
    found = log.rows(_requests(_shown(log)).select("user_id", "request_id", "row"))
    return {(r["user_id"], r["request_id"]): r["row"] for r in found.to_pylist()}


def histories(log: EventLog, before_ms: int) -> UserHistories:
    """Return every user's behaviours that were visible before ``before_ms``."""
    acted = _acted(log).filter(_IS_PERSON, _.visible_at < before_ms)
    distinct = acted.group_by("user_id", *_BEHAVIOR).aggregate(value=_.value.max())
    found = log.rows(distinct.order_by("user_id", *_BEHAVIOR))
    users = found["user_id"].combine_chunks().dictionary_encode()
    counts = np.bincount(users.indices.to_numpy(), minlength=len(users.dictionary))
    return UserHistories(
        user_ids=_objects(users.dictionary),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        behaviors=_behaviors(found),
    )


def item_counts(log: EventLog, before_ms: int) -> dict[int, int]:
    """Return the number of events of each item_key visible before ``before_ms``."""
    seen = log.events.filter(_.visible_at < before_ms)
    once = seen.select("item_key", "partition", "offset").distinct()
    found = log.rows(once.group_by("item_key").aggregate(count=_.count()))
    return dict(zip(found["item_key"].to_pylist(), found["count"].to_pylist(), strict=True))


def _first(events: Table, **columns: Any) -> Table:
    """Return each impression or click once: the first by offset."""
    return events.group_by(*IDENTITY, is_click=_.type == "click").aggregate(
        **{name: value.argmin(_.offset) for name, value in columns.items()}
    )


def _shown(log: EventLog) -> Table:
    """Return the impressions of the requests that have a matured label."""
    shown = log.events.filter(_.type == "impression", _IS_PERSON)
    shown = shown.semi_join(log.labels, ("user_id", "request_id"))
    columns = ("occurred_at", "position", "context")
    return log.remembered(_first(shown, **{name: _[name] for name in columns}))


def _requests(shown: Table) -> Table:
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


def _candidates(log: EventLog, shown: Table, requests: Table) -> Table:
    """Return the impressions with a matured label, and the row of each one's request."""
    owners = requests.select("user_id", "request_id", "at_ms", request="row")
    labelled = shown.inner_join(log.labels, IDENTITY)
    labelled = labelled.inner_join(owners, ("user_id", "request_id"))
    in_place = ibis.window(order_by=("request", "position", "item_key"))
    return labelled.mutate(row=ibis.row_number().over(in_place))


def _acted(log: EventLog) -> Table:
    """Return the events of sequences: clicks and other behaviours."""
    return log.remembered(log.events.filter(_.type.isin(["click", "behavior"])))


def _sequences_at(
    log: EventLog, requests: Table, length: int, ttl_ms: int
) -> SequenceArrays:
    """Return the last behaviours (R, L) visible to each request."""
    latest = _latest(log, _acted(log), requests, length)
    found = log.rows(latest.filter(_.occurred_at > _.at_ms - ttl_ms))
    sequences = empty_sequences(log.rows(requests.count()).as_py(), length)
    index = found["row"].to_numpy(), length - 1 - found["age"].to_numpy()
    behaviors = _behaviors(found)
    for each in fields(SequenceArrays):
        getattr(sequences, each.name)[index] = getattr(behaviors, each.name)
    return sequences


def _exposures_at(
    log: EventLog, exposed: Table, requests: Table, candidates: Table, length: int
) -> ItemExposures:
    """Return each candidate's exposures among its user's last ones."""
    latest = _latest(log, exposed, requests, length)
    before = latest.select("item_key", request="row", shown_ms="occurred_at")
    shown = candidates.left_join(before, ("request", "item_key"))
    each = shown.group_by("row").aggregate(
        count=_.shown_ms.count(), last_ms=_.shown_ms.max().fill_null(0)
    )
    found = log.rows(each.order_by("row"))
    return ItemExposures(
        counts=found["count"].to_numpy(), last_shown_ms=found["last_ms"].to_numpy()
    )


def _exposed(counted: Table) -> Table:
    """Return the impressions as behaviours without an action, for ``_latest``."""
    return counted.filter(~_.is_click).mutate(
        action_code=ibis.literal(0, "int64"), value=ibis.null("float64")
    )


def _latest(log: EventLog, acted: Table, requests: Table, length: int) -> Table:
    """Return the last ``length`` of ``acted`` that each request could see, by ``age``."""
    placed = log.keep(_placed(acted.semi_join(requests, "user_id")))
    reach = _reach(placed, requests)
    # At most happened - known of them are not visible yet; of the rest the last L are.
    first = ibis.greatest(reach.known - length, 0)
    wanted = reach.mutate(place=ibis.range(first, reach.happened).unnest())
    seen = wanted.inner_join(placed, ("user_id", "place")).filter(_.visible_at < _.at_ms)
    latest = seen.group_by("row", "at_ms", "place", *_BEHAVIOR).aggregate(
        value=_.value.max()
    )
    newest_first = ibis.window(group_by="row", order_by=ibis.desc("place"))
    latest = latest.mutate(age=ibis.row_number().over(newest_first))
    return latest.filter(_.age < length)


def _placed(acted: Table) -> Table:
    """Return the behaviours with their places, 0, 1, … in their users' histories.

    Equal ones with several values share a place: the value depends on the request's time.
    """
    once = acted.group_by("user_id", *_BEHAVIOR, "value").aggregate(
        visible_at=_.visible_at.min()
    )
    in_order = ibis.window(group_by="user_id", order_by=_BEHAVIOR)
    return once.mutate(place=ibis.dense_rank().over(in_order))


def _reach(placed: Table, requests: Table) -> Table:
    """Return for each request how many behaviours had happened before, and were known."""
    each = placed.group_by("user_id", "place").aggregate(
        occurred_at=_.occurred_at.min(), visible_at=_.visible_at.min()
    )
    steps = ibis.union(
        requests.select("user_id", "at_ms", "row", step=_REQUESTED),
        each.select("user_id", at_ms="occurred_at", row=ibis.null("int64"), step=_HAPPENED),
        each.select("user_id", at_ms="visible_at", row=ibis.null("int64"), step=_KNOWN),
    )
    so_far = ibis.cumulative_window(group_by="user_id", order_by=("at_ms", "step"))
    running = steps.mutate(
        happened=_.user_id.count(where=_.step == _HAPPENED).over(so_far),
        known=_.user_id.count(where=_.step == _KNOWN).over(so_far),
    )
    return running.filter(_.step == _REQUESTED)


def _behaviors(found: Any) -> SequenceArrays:
    return SequenceArrays(
        item_keys=found["item_key"].to_numpy(),
        action_codes=found["action_code"].to_numpy(),
        occurred_at_ms=found["occurred_at"].to_numpy(),
        values=found["value"].fill_null(np.nan).to_numpy(),
    )


def _objects(column: Any) -> Objects:
    return np.array(column.to_pylist(), dtype=object)
