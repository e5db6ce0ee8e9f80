"""Compares rows of the online store with a recomputation from the raw log.

In: a sample of users and items, and the stream's committed offsets. Out: how many rows
differ, and by how much. Rows are compared as of an offset: the store has everything up to
the committed offset, and a newer row has its own. So live traffic causes no false
differences, and lag is reported separately.
"""

import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency.replay import (
    Place,
    events_of,
    item_share_at,
    places,
    total_share_at,
    user_at,
)
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    TOTAL_ITEM,
    TOTAL_KEY,
    item_key,
)
from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    covered_offsets,
    partitions_of,
    skipped_offsets,
)
from srp4ctr.streams.state.counters import Activity, decayed
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import BehaviorSequence
from srp4ctr.streams.state.state_store import FeatureSink
from srp4ctr.streams.state.user_state import NO_PARTITION, UserState

_MOST_EVENTS = 50_000  # of users, and as many of items: as Python objects 36 MB
_MOST_OF_TOTAL = 300_000  # events of a partition whose total is computed: some seconds
_PATIENCE_S = 8.0  # beyond the time that the log is written in
_POLL_S = 0.25
_TOLERANCE = 1e-9  # relative; a rebuild may have added a share's parts in another order
_MAX_DETAILS = 20

_Logged = Mapping[Place, Sequence[LoggedEvent]]
_KINDS = (True, True, False)  # of a user's rows: which is a sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """The result for one row; by default it is right."""

    is_sequence: bool = False
    is_waiting: bool = False
    edits: int = 0
    difference: float = 0.0
    wrong: str = ""
    """The difference, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """The offsets of each partition."""

    stored: Mapping[int, int]
    """The last offset up to which the store has everything."""
    logged: Mapping[int, int]
    """The last offset in the log."""

    def as_of(self, partition: int, row: Activity) -> int | None:
        """Return the offset to compare ``row`` at; None if it is ahead of the log."""
        logged = self.logged[partition]
        if row.last_offset > logged:
            return None
        return max(row.last_offset, min(self.stored[partition], logged))


def check_features(
    config: FeatureConfig,
    sink: FeatureSink,
    streams: StreamConfig,
    committed: Mapping[int, int],
    sample: int = 200,
) -> FeatureCheck:
    """Return the check of at most ``sample`` users and as many items' shares.

    Fewer if these have too many events for the memory; and of the total of all items in one
    partition of at most ``_MOST_OF_TOTAL`` events, if there is one. ``streams`` has the
    lengths of sequences and exposures. ``committed`` is the stream's next offset by
    partition, read before this call: the store must have everything before it. Partitions
    whose log lacks their first event, because of its retention, are left out.
    """
    log_dir = config.raw_log
    users, items, totals, cut = _drawn(log_dir, sample)
    rows = sink.read(
        [user_id for user_id, _ in users],
        [(item_key(item_id), partition) for item_id, partition in items + totals],
    )
    last = _last_offsets(users, rows)
    patience_s = _PATIENCE_S + streams.log_flush_interval_s
    drawn_of = {p for _, p in users + items + totals}
    logged = _logged_offsets(log_dir, drawn_of, last, patience_s)
    progress = _Progress(
        stored=defaultdict(lambda: -1, {p: end - 1 for p, end in committed.items()}),
        logged=logged,
    )
    done = events_of(log_dir, "user_id", users)
    shown = events_of(log_dir, "item_id", items)
    found = [
        *_compare_users(done, rows, progress, streams),
        *_compare_items(shown, rows, progress),
        *(_compare_total(log_dir, rows, progress, p) for _, p in totals),
    ]
    has = {p: max(progress.stored[p], last[p]) for p in logged}
    skipped = sum(skipped_offsets(log_dir, BEHAVIOR_EVENTS_TOPIC).values())
    return _summary(found, len(cut), skipped, _behind_ms(done, has))


def _drawn(
    log_dir: Log, sample: int
) -> tuple[list[Place], list[Place], list[Place], set[int]]:
    """Return users, items and a total of whole partitions, and the partitions left out."""
    spans = {p: _covered(log_dir, p) for p in partitions_of(log_dir, BEHAVIOR_EVENTS_TOPIC)}
    cut = {partition for partition, (first, _) in spans.items() if first > 0}
    users = _short(places(log_dir, "user_id", sample, cut))
    items = _short(places(log_dir, "item_id", sample, cut))
    totals = _sampled_total({p: last for p, (_, last) in spans.items() if p not in cut})
    return users, items, totals, cut


def _short(found: Mapping[Place, int]) -> list[Place]:
    """Return the first of ``found`` that have not too many events together."""
    until = accumulate(found.values())
    ends = zip(found.items(), until, strict=True)
    return [place for (place, own), events in ends if events - own < _MOST_EVENTS]


def _sampled_total(last: Mapping[int, int]) -> list[Place]:
    """Return the place of one partition's total, of those whose last offset is not far."""
    short = [partition for partition, offset in last.items() if offset < _MOST_OF_TOTAL]
    return [(TOTAL_ITEM, random.choice(short))] if short else []


def _last_offsets(users: Sequence[Place], rows: Rows) -> Mapping[int, int]:
    """Return the largest last_offset of the rows of each partition; else -1."""
    last: dict[int, int] = defaultdict(lambda: -1)
    for user_id, partition in users:
        user = rows.users.get(user_id, UserState())
        last[partition] = max(last[partition], user.last_offset)
    for (_, partition), activity in rows.shares.items():
        last[partition] = max(last[partition], activity.last_offset)
    return last


def _logged_offsets(
    log_dir: Log, partitions: set[int], wanted: Mapping[int, int], patience_s: float
) -> dict[int, int]:
    """Return the log's last offsets; wait ``patience_s`` for those in ``wanted``."""
    deadline = time.monotonic() + patience_s
    while True:
        logged = {p: _covered(log_dir, p)[1] for p in partitions}
        is_there = all(logged[p] >= wanted[p] for p in partitions)
        if is_there or time.monotonic() > deadline:
            return logged
        time.sleep(_POLL_S)


def _covered(log_dir: Log, partition: int) -> tuple[int, int]:
    return covered_offsets(log_dir, BEHAVIOR_EVENTS_TOPIC, partition)


def _compare_users(
    logged: _Logged, rows: Rows, progress: _Progress, streams: StreamConfig
) -> Iterator[_Finding]:
    for (user_id, partition), events in logged.items():
        stored = rows.users.get(user_id, UserState())
        of = f"user {user_id} (partition {partition})"
        if (offset := progress.as_of(partition, stored)) is None:
            yield from (_Finding(is_sequence=kind, is_waiting=True) for kind in _KINDS)
            continue
        right = user_at(events, offset, streams)
        found = _compare_sequences(f"sequence of {of}", stored.sequence, right.sequence)
        if (stored.profile_at_ms, stored.attributes) != (
            right.profile_at_ms,
            right.attributes,
        ):
            found = replace(found, wrong=f"{of}: other attributes than the log says")
        if stored.partition not in (NO_PARTITION, partition):
            wrong = f"{of}: its row has offsets of partition {stored.partition}"
            found = replace(found, wrong=wrong)
        if stored.forgotten_at_ms != right.forgotten_at_ms:
            wrong = f"{of}: forgotten until {stored.forgotten_at_ms}, not as the log says"
            found = replace(found, wrong=wrong)
        yield found
        yield _compare_sequences(f"exposures of {of}", stored.exposures, right.exposures)
        yield _compare_counters(f"counters of {of}", stored, right)


def _compare_items(logged: _Logged, rows: Rows, progress: _Progress) -> Iterator[_Finding]:
    for (item_id, partition), events in logged.items():
        stored = rows.shares.get((item_key(item_id), partition), Activity())
        if (offset := progress.as_of(partition, stored)) is None:
            yield _Finding(is_waiting=True)
            continue
        of = f"counters of item {item_id} (partition {partition})"
        yield _compare_counters(of, stored, item_share_at(events, offset, partition))


def _compare_total(
    log_dir: Log, rows: Rows, progress: _Progress, partition: int
) -> _Finding:
    stored = rows.shares.get((TOTAL_KEY, partition), Activity())
    if (offset := progress.as_of(partition, stored)) is None:
        return _Finding(is_waiting=True)
    right = total_share_at(log_dir, offset, partition)
    of = f"counters of all items (partition {partition})"
    return _compare_counters(of, stored, right)


def _compare_sequences(
    of: str, stored: BehaviorSequence, right: BehaviorSequence
) -> _Finding:
    edits = _edit_distance(stored.elements, right.elements)
    wrong = f"{of}: {edits} edits" if edits else ""
    return _Finding(is_sequence=True, edits=edits, wrong=wrong)


def _compare_counters(of: str, stored: Activity, right: Activity) -> _Finding:
    at_ms = max(stored.counted_at_ms, right.counted_at_ms)
    pairs = zip(_counts(stored, at_ms), _counts(right, at_ms), strict=True)
    largest = max(
        abs(a - b) if abs(a - b) > _TOLERANCE * max(a, b, 1.0) else 0.0 for a, b in pairs
    )
    times = (stored.counted_at_ms, stored.first_seen_ms)
    if not largest and times == (right.counted_at_ms, right.first_seen_ms):
        return _Finding()
    return _Finding(difference=largest, wrong=f"{of}: off by up to {largest:.3g} events")


def _counts(activity: Activity, at_ms: int) -> tuple[float, ...]:
    elapsed_ms = at_ms - activity.counted_at_ms
    return decayed(activity.impressions, elapsed_ms) + decayed(activity.clicks, elapsed_ms)


def _behind_ms(logged: _Logged, has: Mapping[int, int]) -> int:
    """Return the age of the oldest event that the store does not have."""
    missing = (
        event.known_at_ms
        for (_, partition), events in logged.items()
        for event in events
        if event.offset > has[partition]
    )
    now_ms = time.time_ns() // 1_000_000
    return now_ms - min(missing, default=now_ms)


def _summary(
    found: Sequence[_Finding], cut: int, skipped: int, behind_ms: int
) -> FeatureCheck:
    wrong = [each for each in found if each.wrong]
    waiting = sum(each.is_waiting for each in found)
    return FeatureCheck(
        checked_at_ms=time.time_ns() // 1_000_000,
        rows=len(found) - waiting,
        wrong_sequences=sum(each.is_sequence for each in wrong),
        edits=sum(each.edits for each in wrong),
        wrong_counters=sum(not each.is_sequence for each in wrong),
        largest_difference=max((each.difference for each in wrong), default=0.0),
        waiting=waiting,
        partitions_left_out=cut,
        skipped_offsets=skipped,
        behind_s=behind_ms / 1000,
        details=tuple(each.wrong for each in wrong[:_MAX_DETAILS]),
    )


def _edit_distance(left: Sequence[object], right: Sequence[object]) -> int:
    """Return the least insertions, removals and replacements from one to the other."""
    if left == right:
        return 0
    above = list(range(len(right) + 1))
    for row, one in enumerate(left, start=1):
        current = [row]
        for column, other in enumerate(right, start=1):
            replaced = above[column - 1] + (one != other)
            current.append(min(replaced, above[column] + 1, current[-1] + 1))
        above = current
    return above[-1]
