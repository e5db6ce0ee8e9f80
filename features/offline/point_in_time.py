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
import pyarrow as pa
from ibis import _
from numpy.typing import NDArray

from srp4ctr.features.columns import MAX_ACTIONS
from srp4ctr.features.config import ttl_ms_of
from srp4ctr.features.offline.counters_as_of import (
    activity_of,
    activity_table,
    total_table,
)
from srp4ctr.features.offline.event_tables import EventLog, Table
from srp4ctr.features.offline.profiles import profiles_of
from srp4ctr.features.offline.visible_events import (
    BEHAVIOR,
    IS_PERSON,
    acted_events,
    candidates_of,
    counted_events,
    distinct_events,
    exposed,
    exposures_of,
    latest_of,
    requests_of,
    shown_impressions,
)
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    ExposureArrays,
    ItemExposures,
    SequenceArrays,
    empty_sequences,
)
from srp4ctr.streams.events.schema import names_by_code
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH

Int64s = NDArray[np.int64]
Objects = NDArray[np.object_]

_MIN_ACTION_COUNT = 50  # rarer actions have no columns of their own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestSnapshots:
    """R requests by time, with M candidates that lie together by request and position."""

    user_ids: Objects  # (R,)
    times_ms: Int64s
    contexts: Objects
    """JSON or None, of the request's first impression."""
    user_attributes: Objects
    """JSON, "" for none, as of the request's time."""
    sequences: SequenceArrays  # (R, L)
    user_activity: ActivityArrays  # (R,), as of the request's time
    total_activity: ActivityArrays
    """(R,): all impressions and clicks of all items, as of the request's time."""
    candidate_requests: Int64s  # (M,): row of its request, ascending
    candidate_item_keys: Int64s
    candidate_positions: Int64s
    candidate_clicked: NDArray[np.bool_]
    """The last label in the log: a click after the window counts."""
    candidate_numbers: Objects
    """JSON or None: ``Impression.numbers``."""
    candidate_log_draw: NDArray[np.float64]
    """Log of the probability that a sampled slate draws the candidate; 0 if shown."""
    candidate_activity: ActivityArrays  # (M,), as of the request's time
    candidate_exposures: ItemExposures  # (M,), to the request's user

    def take(self, requests: Int64s) -> "RequestSnapshots":
        """Return the requests at these rows, ascending, and their candidates."""
        place = np.full(len(self.times_ms), -1)
        place[requests] = np.arange(len(requests))
        candidates = np.flatnonzero(place[self.candidate_requests] >= 0)
        kept: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            rows = candidates if field.name.startswith("candidate_") else requests
            is_array = isinstance(value, np.ndarray)
            kept[field.name] = value[rows] if is_array else value.take(rows)
        kept["candidate_requests"] = place[kept["candidate_requests"]]
        return RequestSnapshots(**kept)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserHistories:
    """All distinct behaviours of U users, oldest first, one user after another."""

    user_ids: Objects  # (U,), ascending
    starts: Int64s
    """(U + 1,): user u's behaviours are ``starts[u]:starts[u + 1]``."""
    behaviors: SequenceArrays  # (K,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestTables:
    """Snapshots that the engine has computed and keeps, to be read in parts."""

    log: EventLog
    length: int
    """L."""
    requests: Table
    user_attributes: Table
    sequences: Table
    user_activity: Table
    total_activity: Table
    candidates: Table
    candidate_activity: Table
    candidate_exposures: Table
    clicks: Table
    """item_key, occurred_at and visible_at of each click that the counters count."""

    def times_ms(self) -> Int64s:
        """Return the time of each request (R,), ascending."""
        at = self.log.rows(self.requests.order_by("row").select("at_ms"))
        times: Int64s = at["at_ms"].to_numpy()
        return times

    def newest_clicks_ms(self, number: int) -> int:
        """Return the earliest request's time of the newest ``number`` clicks; 0: fewer."""
        clicked = self.candidates.filter(_.clicked).order_by(ibis.desc("at_ms"))
        newest = clicked.limit(number).aggregate(count=_.count(), first_ms=_.at_ms.min())
        [found] = self.log.rows(newest).to_pylist()
        return int(found["first_ms"]) if found["count"] == number else 0

    def read(self, first: int, last: int) -> RequestSnapshots:
        """Return the requests in rows ``first`` to ``last - 1``, and their candidates."""
        found = self._part(self.requests, "row", first, last)
        offered = self._part(self.candidates, "request", first, last)
        rows = offered["row"].to_numpy()
        of_these = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        return RequestSnapshots(
            user_ids=_objects(found["user_id"]),
            times_ms=found["at_ms"].to_numpy(),
            contexts=_objects(found["context"]),
            user_attributes=self._attributes(first, last),
            sequences=self._sequences(first, last),
            user_activity=activity_of(self._part(self.user_activity, "row", first, last)),
            total_activity=activity_of(self._part(self.total_activity, "row", first, last)),
            candidate_requests=offered["request"].to_numpy() - first,
            candidate_item_keys=offered["item_key"].to_numpy(),
            candidate_positions=offered["position"].to_numpy(),
            candidate_clicked=offered["clicked"].to_numpy(),
            candidate_numbers=_objects(offered["numbers"]),
            candidate_log_draw=offered["log_draw"].to_numpy(),
            candidate_activity=activity_of(
                self._part(self.candidate_activity, "row", *of_these)
            ),
            candidate_exposures=self._exposures(*of_these),
        )

    def _part(self, table: Table, column: str, first: int, last: int) -> Any:
        wanted = table.filter(table[column] >= first, table[column] < last)
        return self.log.rows(wanted.order_by("row"))

    def _attributes(self, first: int, last: int) -> Objects:
        found = self._part(self.user_attributes, "row", first, last)
        attributes = np.full(last - first, "", dtype=object)
        attributes[found["row"].to_numpy() - first] = found["attributes"].to_pylist()
        return attributes

    def _exposures(self, first: int, last: int) -> ItemExposures:
        found = self._part(self.candidate_exposures, "row", first, last)
        counts, last_shown_ms = np.zeros((2, last - first), dtype=np.int64)
        index = found["row"].to_numpy() - first
        counts[index], last_shown_ms[index] = found["count"], found["last_ms"]
        return ItemExposures(counts=counts, last_shown_ms=last_shown_ms)

    def _sequences(self, first: int, last: int) -> SequenceArrays:
        """Return the last behaviours (R, L) visible to each request."""
        found = self._part(self.sequences, "row", first, last)
        sequences = empty_sequences(last - first, self.length)
        index = found["row"].to_numpy() - first, self.length - 1 - found["age"].to_numpy()
        behaviors = _behaviors(found)
        for field in fields(SequenceArrays):
            getattr(sequences, field.name)[index] = getattr(behaviors, field.name)
        return sequences


def request_tables(
    log: EventLog, length: int, ttl_days: float, exposure_length: int = EXPOSURE_LENGTH
) -> RequestTables:
    """Compute the requests of the log that have a matured label, and their features.

    ``length`` is L, ``exposure_length`` is W. Behaviours expire after ``ttl_days``, as in
    serving. They are kept by row, so that reading a part skips the rest.
    """
    with log.kept(shown_impressions(log)) as shown:
        requests = log.keep(requests_of(shown).order_by("row"))
        candidates = candidates_of(log, shown, requests)
    unexpired = _.occurred_at > _.at_ms - ttl_ms_of(ttl_days)
    latest = latest_of(log, acted_events(log), requests, length)
    sequences = (log.keep(each.filter(unexpired).order_by("row")) for each in latest)
    instants = requests.select("row", "at_ms", owner="user_id")
    with log.kept(counted_events(log)) as counted:
        remembered = log.remembered(counted)
        return RequestTables(
            log=log,
            length=length,
            requests=requests,
            user_attributes=log.keep(profiles_of(log, requests).order_by("row")),
            sequences=ibis.union(*sequences),
            user_activity=activity_table(
                log, log.since_erasure(remembered).rename(owner="user_id"), instants
            ),
            total_activity=total_table(log, counted, instants.drop("owner")),
            candidates=candidates,
            candidate_activity=activity_table(
                log,
                counted.rename(owner="item_key"),
                candidates.select("row", "at_ms", owner="item_key"),
            ),
            candidate_exposures=exposures_of(
                log, exposed(remembered), requests, candidates, exposure_length
            ),
            clicks=log.keep(
                counted.filter(_.is_click).select("item_key", "occurred_at", "visible_at")
            ),
        )


def snapshot(
    log: EventLog, length: int, ttl_days: float, exposure_length: int = EXPOSURE_LENGTH
) -> RequestSnapshots:
    """Return all of ``request_tables`` at once."""
    tables = request_tables(log, length, ttl_days, exposure_length)
    return tables.read(0, log.rows(tables.requests.count()).as_py())


def exposures_before(
    log: EventLog, tables: RequestTables, requests: Int64s, length: int
) -> ExposureArrays:
    """Return the last ``length`` exposures (N, W) of the users of ``requests`` (N,).

    ``requests`` are rows of ``tables``, ascending.
    """
    rows = ibis.memtable(pa.table({"row": requests}))
    some = tables.requests.semi_join(rows, "row")
    keys, shown_ms = np.zeros((2, len(requests), length), dtype=np.int64)
    with log.kept(exposed(log.remembered(counted_events(log)))) as shown:
        for part in latest_of(log, shown, some, length):
            found = log.rows(part)
            row = np.searchsorted(requests, found["row"].to_numpy())
            index = row, length - 1 - found["age"].to_numpy()
            keys[index] = found["item_key"].to_numpy()
            shown_ms[index] = found["occurred_at"].to_numpy()
    return ExposureArrays(item_keys=keys, shown_at_ms=shown_ms)


def request_rows(log: EventLog) -> dict[tuple[str, str], int]:
    """Return the row of each user's request, by its request_id, in ``snapshot``."""
    found = log.rows(
        requests_of(shown_impressions(log)).select("user_id", "request_id", "row")
    )
    return {(r["user_id"], r["request_id"]): r["row"] for r in found.to_pylist()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HistoryTable:
    """Every user's behaviours, kept by the engine: some users' are read at a time."""

    log: EventLog
    behaviors: Table
    """With user, the place of each user_id among them, and row, in their order."""
    counts: Int64s
    """(U,): how many behaviours each user has."""

    def read(self, first: int, last: int) -> UserHistories:
        """Return the histories of the users ``first`` to ``last - 1``."""
        mine = self.behaviors.filter(
            self.behaviors.user >= first, self.behaviors.user < last
        )
        found = self.log.rows(mine.order_by("row"))
        starts = np.concatenate([[0], np.cumsum(self.counts[first:last])]).astype(np.int64)
        return UserHistories(
            user_ids=_objects(found["user_id"].take(pa.array(starts[:-1]))),
            starts=starts,
            behaviors=_behaviors(found),
        )


def history_table(log: EventLog, before_ms: int) -> HistoryTable:
    """Compute every user's behaviours that were visible before ``before_ms``."""
    acted = acted_events(log).filter(IS_PERSON, _.visible_at < before_ms)
    distinct = acted.group_by("user_id", *BEHAVIOR).aggregate(value=_.value.max())
    in_order = ibis.window(order_by=("user_id", *BEHAVIOR))
    numbered = distinct.mutate(
        row=ibis.row_number().over(in_order),
        user=ibis.dense_rank().over(ibis.window(order_by="user_id")),
    )
    kept = log.keep(numbered.order_by("row"))
    found = log.rows(kept.group_by("user").aggregate(count=_.count()).order_by("user"))
    return HistoryTable(log=log, behaviors=kept, counts=found["count"].to_numpy())


def histories(log: EventLog, before_ms: int) -> UserHistories:
    """Return all of ``history_table`` at once."""
    table = history_table(log, before_ms)
    return table.read(0, len(table.counts))


def item_counts(log: EventLog, before_ms: int) -> dict[int, int]:
    """Return the number of distinct events of each item_key seen before ``before_ms``."""
    seen = distinct_events(log).filter(_.visible_at < before_ms)
    found = log.rows(seen.group_by("item_key").aggregate(count=_.count()))
    return dict(zip(found["item_key"].to_pylist(), found["count"].to_pylist(), strict=True))


def frequent_actions(log: EventLog, before_ms: int) -> tuple[tuple[str, int], ...]:
    """Return names and codes of the most frequent actions, by code: at most MAX_ACTIONS.

    Of distinct behaviours visible before ``before_ms``, so that a repeated import changes
    nothing. None where all behaviours are of one action.
    """
    acted = acted_events(log).filter(IS_PERSON, _.visible_at < before_ms)
    distinct = acted.select("user_id", *BEHAVIOR).distinct()
    counts = distinct.group_by("action_code").aggregate(times=_.count())
    frequent = counts.filter(_.times >= _MIN_ACTION_COUNT)
    frequent = frequent.order_by(ibis.desc("times"), "action_code").limit(MAX_ACTIONS)
    codes = sorted(log.rows(frequent)["action_code"].to_pylist())
    if len(codes) < 2:
        return ()
    actions = log.rows(acted.select("action").distinct())["action"].to_pylist()
    names = names_by_code(actions, log.action_codes)
    return tuple((names[code], code) for code in codes)


def _behaviors(found: Any) -> SequenceArrays:
    return SequenceArrays(
        item_keys=found["item_key"].to_numpy(),
        action_codes=found["action_code"].to_numpy(),
        occurred_at_ms=found["occurred_at"].to_numpy(),
        values=found["value"].fill_null(np.nan).to_numpy(),
    )


def _objects(column: Any) -> Objects:
    return np.array(column.to_pylist(), dtype=object)
