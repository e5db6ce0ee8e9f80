"""A user's events → visits to replay: the first are history, the last are live.

In: events of our schema in any order. Out: per user a list of visits, each a slate of
impressions, its clicks and the behaviours after it, and the history as events that end
now. A slate's clicks and behaviours keep their order, but follow within seconds, so that
labels mature while the demo runs.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from srp4ctr.streams.events.schema import (
    Behavior,
    Click,
    Event,
    Impression,
    ItemUpdate,
    UserEvent,
    UserUpdate,
    item_key,
)

FIRST_CLICK_MS = 1_000  # after the slate was shown
CLICKS_SPAN_MS = 900
FIRST_BEHAVIOR_MS = 2_000
BEHAVIORS_SPAN_MS = 400
VISIT_MS = 3_000  # the next slate comes no sooner
MAX_LIVE_VISITS = 3_000  # a slow machine ranks 20 a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One slate: its impressions, its clicks, and the behaviours before the next one."""

    shown_at_ms: int
    impressions: tuple[Impression, ...]
    clicks: tuple[Click, ...]
    behaviors: tuple[Behavior, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A user's visits in the order of time; ``history`` of them come before now."""

    user_id: str
    before: tuple[Behavior, ...]
    visits: tuple[Visit, ...]
    num_history: int

    @property
    def live(self) -> tuple[Visit, ...]:
        """The visits to replay."""
        return self.visits[self.num_history :]


def timelines(
    events: Iterable[Event], live_share: float, max_live: int = MAX_LIVE_VISITS
) -> list[Timeline]:
    """Return each user's timeline; the last ``live_share`` of the slates are live.

    With more than ``max_live`` visits only some users have live ones.
    """
    by_user: dict[str, list[UserEvent]] = defaultdict(list)
    for event in events:
        if not isinstance(event, ItemUpdate | UserUpdate):
            by_user[event.user_id].append(event)
    result = [_timeline(user, own, live_share) for user, own in by_user.items()]
    return list(_limited(result, max_live))


def _limited(lines: Iterable[Timeline], max_live: int) -> Iterator[Timeline]:
    """Yield ``lines``, without live visits from where there are ``max_live`` of them."""
    live = 0
    for line in sorted(lines, key=lambda each: item_key(each.user_id)):  # in no order
        live += len(line.live)
        enough = live - len(line.live) >= max_live
        yield replace(line, num_history=len(line.visits)) if enough else line


def history_events(timeline: Timeline, now_ms: int) -> list[UserEvent]:
    """Return the events before the live visits; their clock ends by ``now_ms``."""
    history = timeline.visits[: timeline.num_history]
    starts = _starts(history, now_ms - VISIT_MS)
    events: list[UserEvent] = []
    first = starts[0] if starts else now_ms
    shown = history[0].shown_at_ms if history else now_ms
    for behavior in timeline.before:  # these keep their distance to the first slate
        at = min(first - 1, first - (shown - behavior.occurred_at))
        events.append(msgspec.structs.replace(behavior, occurred_at=at))
    for visit, start in zip(history, starts, strict=True):
        events += at_time(visit.impressions, start, 0)
        events += at_time(visit.clicks, start + FIRST_CLICK_MS, CLICKS_SPAN_MS)
        events += at_time(visit.behaviors, start + FIRST_BEHAVIOR_MS, BEHAVIORS_SPAN_MS)
    return events


def at_time(events: Sequence[UserEvent], start_ms: int, span_ms: int) -> list[UserEvent]:
    """Return ``events`` spread evenly over ``span_ms`` from ``start_ms``, in order."""
    step = span_ms / max(len(events), 1)
    return [
        msgspec.structs.replace(event, occurred_at=start_ms + int(i * step))
        for i, event in enumerate(events)
    ]


def _timeline(user_id: str, events: list[UserEvent], live_share: float) -> Timeline:
    shown: dict[str, list[Impression]] = defaultdict(list)
    clicks: dict[str, list[Click]] = defaultdict(list)
    behaviors: list[Behavior] = []
    for event in events:
        if isinstance(event, Impression):
            shown[event.request_id].append(event)
        elif isinstance(event, Click):
            clicks[event.request_id].append(event)
        elif isinstance(event, Behavior):
            behaviors.append(event)
    behaviors.sort(key=lambda each: each.occurred_at)
    requests = sorted(shown, key=lambda each: min(i.occurred_at for i in shown[each]))
    times = [min(i.occurred_at for i in shown[each]) for each in requests]
    visits, begin = [], _first_from(behaviors, times[0] if times else None)
    before = tuple(behaviors[:begin])
    ends = [*times[1:], None][: len(times)]
    for request, at, until in zip(requests, times, ends, strict=True):
        end = max(begin, _first_from(behaviors, until))
        visits.append(
            Visit(
                shown_at_ms=at,
                impressions=tuple(sorted(shown[request], key=lambda i: i.position)),
                clicks=tuple(sorted(clicks[request], key=lambda c: c.occurred_at)),
                behaviors=tuple(behaviors[begin:end]),
            )
        )
        begin = end
    num_live = max(1, round(live_share * len(visits))) if len(visits) > 1 else 0
    return Timeline(
        user_id=user_id,
        before=before,
        visits=tuple(visits),
        num_history=len(visits) - num_live,
    )


def _first_from(behaviors: Sequence[Behavior], at_ms: int | None) -> int:
    """Return the index of the first behaviour at or after ``at_ms`` (None: the end)."""
    if at_ms is None:
        return len(behaviors)
    return bisect_left(behaviors, at_ms, key=lambda each: each.occurred_at)


def _starts(visits: Sequence[Visit], last_ms: int) -> list[int]:
    """Return each visit's start: the given gaps, at least VISIT_MS, up to ``last_ms``."""
    starts: list[int] = []
    next_start, next_shown = last_ms + VISIT_MS, None
    for visit in reversed(visits):
        gap = VISIT_MS if next_shown is None else next_shown - visit.shown_at_ms
        next_start -= max(VISIT_MS, gap)
        starts.append(next_start)
        next_shown = visit.shown_at_ms
    return starts[::-1]
