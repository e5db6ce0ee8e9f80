"""A partition's past → its users' and items' rows, folded from nothing.

In: the events since an instant. Out: rows that replace the stored ones, each complete when
it is written, so that no request gets half a history meanwhile. Users are folded in
portions, a pass over the past each, so that memory is bounded.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import xxhash

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import FORGOTTEN_USER
from srp4ctr.streams.state.counters import Activity, total
from srp4ctr.streams.state.exposures import Exposures
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.sequences import BehaviorSequence
from srp4ctr.streams.worker.replay import ReplaySource

USERS_A_PASS = 20_000

ReadRows = Callable[[Collection[str], Collection[ItemPartitionKey]], Awaitable[Rows]]
WriteRows = Callable[[Rows], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The part of a partition's past that is folded: known since, and before an offset."""

    partition: int
    since_ms: int
    end: int


async def rebuild_rows(
    past: ReplaySource, span: Span, config: StreamConfig, read: ReadRows, write: WriteRows
) -> int:
    """Replace the rows that ``span`` has events of, and return how many users those are.

    Other rows stay as they are. ``read`` gives the stored rows: the new ones get greater
    versions, and erasure requests stay in force.
    """
    portions = 1 + await _count_users(past, span) // USERS_A_PASS
    shares: dict[ItemPartitionKey, Activity] = {}
    users = 0
    for portion in range(portions):
        state = PartitionState(span.partition, 0, config)
        async for events in past.events(span.since_ms, span.end):
            own = [e for e in events if _portion(e.event.user_id, portions) == portion]
            await _fold(state, own, read)
        rows = state.dirty
        parts, rows.shares = rows.shares, {}
        for kept in (rows.sequences, rows.activities, rows.exposures):
            kept.pop(FORGOTTEN_USER, None)  # nobody's: it counts for items only
        await write(rows)
        users += len(rows.users)
        _add(shares, parts)
    await write(Rows(shares=shares))
    return users


async def _count_users(past: ReplaySource, span: Span) -> int:
    seen: set[int] = set()
    async for events in past.events(span.since_ms, span.end):
        seen.update(xxhash.xxh3_64_intdigest(each.event.user_id) for each in events)
    return len(seen)


async def _fold(
    state: PartitionState, events: Sequence[LoggedEvent], read: ReadRows
) -> None:
    users, shares = state.missing_rows(events)
    if users or shares:
        blank = _blank(await read(users, shares))
        state.cache_rows(users, shares, blank)
        state.dirty.update(blank)  # stored rows go, even if no event is folded into them
    state.fold(events, now_ms=max((e.known_at_ms for e in events), default=0))
    state.decided, state.folded = [], []  # published and counted when they came


def _blank(stored: Rows) -> Rows:
    """Return empty rows of newer versions that keep the erasures of ``stored`` ones."""
    return Rows(
        sequences={
            user_id: BehaviorSequence(
                version_us=each.version_us + 1,
                forgotten_at_ms=each.forgotten_at_ms,
                forgotten_offset=each.forgotten_offset,
            )
            for user_id, each in stored.sequences.items()
        },
        activities={
            user_id: Activity(version_us=each.version_us + 1)
            for user_id, each in stored.activities.items()
        },
        exposures={
            user_id: Exposures(
                version_us=each.version_us + 1, forgotten_at_ms=each.forgotten_at_ms
            )
            for user_id, each in stored.exposures.items()
        },
        shares={
            key: Activity(version_us=each.version_us + 1)
            for key, each in stored.shares.items()
        },
    )


def _add(
    shares: dict[ItemPartitionKey, Activity], added: Mapping[ItemPartitionKey, Activity]
) -> None:
    """Add one portion's part of each share to what the portions before had seen."""
    for key, activity in added.items():
        before = shares.get(key)
        if before is not None:
            last = max(before.last_offset, activity.last_offset)
            activity = msgspec.structs.replace(total([before, activity]), last_offset=last)
        shares[key] = activity


def _portion(user_id: str, portions: int) -> int:
    return 0 if portions == 1 else xxhash.xxh3_64_intdigest(user_id) % portions
