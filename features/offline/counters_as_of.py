"""Events → decayed counts of users or items at many instants at once, by Ibis.

c(t) = Σ_i 2^(−(t − t_i) / h), as in ``streams.state.counters``, over the events that were
visible before t, without joining every event with every instant: time is divided into
buckets, and c(t) is a running sum within t's bucket plus the decayed sum of the earlier
buckets. No term is negative, so nothing cancels.
"""

from typing import Any

import ibis
import ibis.selectors as s
import numpy as np
import pyarrow as pa
from ibis import _

from srp4ctr.features.columns import HALF_LIVES
from srp4ctr.features.offline.event_tables import EventLog, Table
from srp4ctr.features.tensors.arrays import ActivityArrays
from srp4ctr.streams.state.counters import HALF_LIVES_MS

# A weight is at most 2^512: half of a double's exponents are left for sums.
_BUCKET_MS = round(512 * min(HALF_LIVES_MS))
_SPAN_MS = 3_600_000  # of the total; buckets begin where a span does
_HALF_LIVES_MS = dict(zip(HALF_LIVES, HALF_LIVES_MS, strict=True))
_IMPRESSIONS = tuple(f"impressions_{name}" for name in _HALF_LIVES_MS)
_CLICKS = tuple(f"clicks_{name}" for name in _HALF_LIVES_MS)
_COUNTS = (*_IMPRESSIONS, *_CLICKS)


def activity_table(log: EventLog, events: Table, instants: Table) -> Table:
    """Compute the counts of N owners at their instants, in the order of ``row``.

    ``events`` has owner, is_click, occurred_at and visible_at; ``instants`` has owner,
    at_ms and row, 0 to N - 1. The counts are as of ``at_ms``: they need no further decay.
    """
    rows = sum(log.rows(table.count()).as_py() for table in (events, instants))
    parts = log.parts("owner", rows)
    counts = []
    for part in parts:
        at = instants.filter(part)
        each = _numbered(events.filter(part).semi_join(at, "owner"), at)
        # With little memory two separate queries are ten times as fast as one for both.
        with log.kept(each, is_part=len(parts) > 1) as numbered:
            counts.append(_activity(log, _turns(numbered)))
    return ibis.union(*counts)


def _activity(log: EventLog, of_turns: Table) -> Table:
    with log.kept(of_turns) as turns:
        parts = ibis.union(_of_this_bucket(turns), _of_earlier_buckets(turns))
        counts = parts.group_by("row").aggregate(
            s.across(s.cols(*_COUNTS), _.sum().fill_null(0.0)),
            at_ms=_.at_ms.max(),
            first_seen_ms=_.first_seen_ms.min().fill_null(0),
        )
        return log.keep(counts.order_by("row"))


def total_table(log: EventLog, events: Table, instants: Table) -> Table:
    """Compute the counts of all ``events`` together at N instants, in the order of ``row``.

    As ``activity_table`` of one owner, whose events could not be divided: each hour is an
    owner, and what came before an hour is added up once for all its instants.
    """
    events = events.mutate(owner=_.visible_at // _SPAN_MS)
    instants = instants.mutate(owner=_.at_ms // _SPAN_MS)
    at = instants.select("row", "owner")
    of_hour = activity_table(log, events, instants).inner_join(at, "row")
    both = of_hour.inner_join(_before_spans(log, events, instants), "owner")
    elapsed_ms = (both.at_ms - both.owner * _SPAN_MS).cast("float64")
    left = _left_after(both, elapsed_ms, "{}_before")
    is_first = (both.seen_before == 0) | both.first_seen_ms.between(1, both.seen_before)
    seen = ibis.ifelse(is_first, both.first_seen_ms, both.seen_before)
    counts = {name: both[name] + left[name] for name in _COUNTS}
    whole = both.select("row", "at_ms", first_seen_ms=seen, **counts)
    return log.keep(whole.order_by("row"))


def _before_spans(log: EventLog, events: Table, instants: Table) -> Table:
    """Return, for each span of ``instants``, the counts of earlier ones at its start."""
    weights = _weights(events, "owner", _SPAN_MS)
    spans = events.group_by("owner").aggregate(
        seen=_.occurred_at.min(), **{name: weights[name].sum() for name in _COUNTS}
    )
    summed = log.rows(spans.order_by("owner")).to_pydict()
    by_span = dict(
        zip(summed.pop("owner"), zip(*summed.values(), strict=True), strict=True)
    )
    owners = log.rows(instants.select("owner").distinct())["owner"].to_pylist()
    half_lives = np.array([*_HALF_LIVES_MS.values()] * 2) / _SPAN_MS
    rows, at, seen, counts = [], 0, 0, np.zeros(len(_COUNTS))
    for span in sorted({*by_span, *owners}):
        counts, at = counts * 2.0 ** (-(span - at) / half_lives), span
        rows.append((span, seen, *counts.tolist()))
        if span in by_span:
            first, *sums = by_span[span]
            seen, counts = min(seen or first, first), counts + sums
    names = ("owner", "seen_before", *(f"{name}_before" for name in _COUNTS))
    types = [pa.int64(), pa.int64(), *[pa.float64()] * len(_COUNTS)]
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = list(map(pa.array, columns, types))
    return ibis.memtable(pa.table(dict(zip(names, arrays, strict=True))))


def activity_of(found: pa.Table) -> ActivityArrays:
    """Return the counts (N, 4) in N rows of ``activity_table``."""
    columns = [found[name].to_numpy() for name in _COUNTS]
    return ActivityArrays(
        counts=np.stack(columns, axis=-1).reshape(-1, 2, len(_CLICKS)),
        counted_at_ms=found["at_ms"].to_numpy(),
        first_seen_ms=found["first_seen_ms"].to_numpy(),
    )


def _numbered(events: Table, instants: Table) -> Table:
    """Return events and instants, with the turn of the instant before or at each.

    Turns are 1, 2, … for an owner's instants by time.
    """
    columns = ("owner", "row", "at_ms", "occurred_at", "is_click")
    seen = events.mutate(row=ibis.null("int64"), at_ms=events.visible_at)
    at = instants.mutate(occurred_at=ibis.null("int64"), is_click=ibis.null("boolean"))
    both = ibis.union(seen.select(*columns), at.select(*columns))
    # An instant comes before the events of its millisecond: it does not see them.
    so_far = ibis.cumulative_window(group_by="owner", order_by=("at_ms", both.row.isnull()))
    return both.mutate(turn=_.row.count().over(so_far), bucket=both.at_ms // _BUCKET_MS)


def _turns(numbered: Table) -> Table:
    """Return each instant, and the sums by bucket of the events between two instants."""
    return numbered.group_by("owner", "bucket", "turn", "row").aggregate(
        at_ms=_.at_ms.max(),
        first_seen_ms=_.occurred_at.min(),
        **{
            name: weight.sum()
            for name, weight in _weights(numbered, "bucket", _BUCKET_MS).items()
        },
    )


def _weights(events: Table, span: str, span_ms: int) -> dict[str, Any]:
    """Return each event's weight as of the start of the ``span`` in which it was visible.

    ``span`` is the column with the span's number.
    """
    # An integer by 3600000.0 is a decimal on Spark, of too few places: a double is not.
    since_start_ms = (events.occurred_at - events[span] * span_ms).cast("float64")
    weights = {}
    for name, half_life_ms in _HALF_LIVES_MS.items():
        weight = ibis.literal(2.0) ** (since_start_ms / half_life_ms)
        weights[f"impressions_{name}"] = ibis.ifelse(events.is_click, 0.0, weight)
        weights[f"clicks_{name}"] = ibis.ifelse(events.is_click, weight, 0.0)
    return weights


def _of_this_bucket(turns: Table) -> Table:
    """Return for each instant the sums of its bucket so far."""
    so_far = ibis.cumulative_window(
        group_by=("owner", "bucket"), order_by=("turn", turns.row.isnull())
    )
    running = turns.mutate(
        s.across(s.cols(*_COUNTS), _.sum().over(so_far)),
        first_seen_ms=_.first_seen_ms.min().over(so_far),
    )
    return _decayed(running.filter(running.row.notnull()))


def _of_earlier_buckets(turns: Table) -> Table:
    """Return for each instant the decayed sums of the earlier buckets.

    They are added once for all instants of a bucket, as of its start.
    """
    totals = turns.group_by("owner", "bucket").aggregate(
        s.across(s.cols(*_COUNTS), _.sum()), first_seen_ms=_.first_seen_ms.min()
    )
    instants = turns.filter(turns.row.notnull()).select("owner", "bucket", "row", "at_ms")
    reached = instants.select("owner", later="bucket").distinct()
    earlier = totals.inner_join(reached, "owner").filter(_.bucket < _.later)
    left = _left_after(earlier, (earlier.later - earlier.bucket) * _BUCKET_MS)
    parts = earlier.select("owner", "first_seen_ms", bucket="later", **left)
    started = parts.group_by("owner", "bucket").aggregate(
        s.across(s.cols(*_COUNTS), _.sum()), first_seen_ms=_.first_seen_ms.min()
    )
    return _decayed(instants.inner_join(started, ("owner", "bucket")))


def _decayed(sums: Table) -> Table:
    """Return ``sums``, as of their buckets' starts, as of ``at_ms``."""
    left = _left_after(sums, sums.at_ms - sums.bucket * _BUCKET_MS)
    return sums.select("row", "at_ms", "first_seen_ms", **left)


def _left_after(sums: Table, elapsed_ms: Any, named: str = "{}") -> dict[str, Any]:
    """Return each count decayed by ``elapsed_ms``; columns are ``named`` by the count."""
    decay = {
        name: ibis.literal(2.0) ** (-elapsed_ms.cast("float64") / half_life_ms)
        for name, half_life_ms in _HALF_LIVES_MS.items()
    }
    return {
        name: sums[named.format(name)] * decay[name.rpartition("_")[2]] for name in _COUNTS
    }
