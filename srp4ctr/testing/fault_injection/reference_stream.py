"""Computes all rows and labels that a topic of events must lead to, the slow way.

In: valid events with their offsets. Out: what the store and the label topic must hold at
the end. No batch, no cache, no clock, only definitions: a duplicate is recognised however
late it comes, where the stream remembers the last records of a partition.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import (
    TOTAL_KEY,
    Behavior,
    Click,
    Forget,
    Impression,
    UserEvent,
    action_code,
    item_key,
)
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.label_join import ImpressionLabel
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement
from srp4ctr.testing.raw_logs import label_of

Identity = tuple[str, str, str]  # user, request, item
HALF_LIVES_MS = (900_000, 4 * 3_600_000, 24 * 3_600_000, 168 * 3_600_000)
TOLERANCE = 1e-6  # of a counter, relative

_Erasable = Impression | Click | Behavior  # what an erasure request erases
_Value = TypeVar("_Value")
_Key = TypeVar("_Key")


@dataclass(slots=True)
class Times:
    """When the impressions and the clicks happened that one owner's counters count."""

    impressions: list[int] = field(default_factory=list)
    clicks: list[int] = field(default_factory=list)

    def count(self, events: Iterable[_Erasable]) -> None:
        """Take the impressions and clicks in ``events``."""
        for event in events:
            if isinstance(event, Impression):
                self.impressions.append(event.occurred_at)
            elif isinstance(event, Click):
                self.clicks.append(event.occurred_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedLabel:
    """The label that must hold for one impression."""

    shown: Impression
    revision: int
    matured_at: frozenset[int]
    """Of several clicks of one revision any may be the one that is named."""


@dataclass(frozen=True, slots=True)
class ExpectedState:
    """What must be stored and published at the end."""

    sequences: dict[str, tuple[SequenceElement, ...]] = field(default_factory=dict)
    exposures: dict[str, tuple[SequenceElement, ...]] = field(default_factory=dict)
    """By user, the time and the item's key of what was shown last."""
    users: dict[str, Times] = field(default_factory=dict)
    items: dict[int, Times] = field(default_factory=dict)
    """By item key, over all partitions; ``TOTAL_KEY`` is of all items together."""
    labels: dict[Identity, ExpectedLabel] = field(default_factory=dict)
    forgotten: set[Identity] = field(default_factory=set)
    """Shown to a user before an erasure request: labelled before that, or never."""


def outcome(logged: Iterable[LoggedEvent], config: StreamConfig) -> ExpectedState:
    """Return what ``logged`` must lead to; offsets order the events of one user."""
    whole = ExpectedState()
    events = [each.event for each in sorted(logged, key=lambda each: each.offset)]
    for user, of_user in _grouped(events, lambda each: each.user_id).items():
        *past_lives, life = lives = _lives(of_user)
        lived = _unforgotten([each for part in lives for each in part], of_user)
        whole.sequences[user] = _latest(lived, config)
        distinct = [event for part in lives for event in _distinct(part)]
        shown = _unforgotten(distinct, of_user)
        whole.exposures[user] = _shown(shown, config.exposure_length)
        whole.users[user] = Times()
        whole.users[user].count(_distinct(life))
        for event in distinct:  # an item's counters are not erased
            for key in (item_key(event.item_id), TOTAL_KEY):
                whole.items.setdefault(key, Times()).count([event])
        for past in past_lives:
            erased = [each for each in past if isinstance(each, Impression)]
            whole.forgotten.update(map(identity, erased))
        whole.labels.update(_labels(life, round(config.label_window_s * 1000)))
    return whole


def identity(event: Impression | Click | ImpressionLabel) -> Identity:
    """Return what makes two impressions one, and two clicks."""
    return (event.user_id, event.request_id, event.item_id)


def sums(times: Sequence[int], at_ms: int) -> list[float]:
    """Return Σ 2^(−(at − t) / h) over ``times`` for each half-life h."""
    return [math.fsum(2.0 ** (-(at_ms - t) / h) for t in times) for h in HALF_LIVES_MS]


def is_activity(activity: Activity, times: Times) -> bool:
    """Return whether ``activity`` holds what was counted at ``times``, as of the last."""
    everything = [*times.impressions, *times.clicks]
    first, last = min(everything, default=0), max(everything, default=0)
    if (activity.first_seen_ms, activity.counted_at_ms) != (first, last):
        return False
    expected = sums(times.impressions, last) + sums(times.clicks, last)
    pairs = zip([*activity.impressions, *activity.clicks], expected, strict=True)
    return all(math.isclose(a, b, rel_tol=TOLERANCE) for a, b in pairs)


def is_label(label: ImpressionLabel | None, expected: ExpectedLabel) -> bool:
    """Return whether ``label`` is the one that must hold."""
    if label is None or label.matured_at not in expected.matured_at:
        return False
    return label == label_of(
        expected.shown,
        clicked=expected.revision > 0,
        within_window=expected.revision != 1,
        matured_at=label.matured_at,
        revision=expected.revision,
    )


def wrong_labels(
    labels: Iterable[ImpressionLabel], expected: ExpectedState
) -> set[Identity]:
    """Return the impressions whose newest revision is missing, wrong or one too many."""
    held: dict[Identity, ImpressionLabel] = {}
    for label in labels:
        before = held.get(identity(label))
        if before is None or before.revision < label.revision:
            held[identity(label)] = label
    wrong = {
        each
        for each, must_be in expected.labels.items()
        if not is_label(held.get(each), must_be)
    }
    unexpected = held.keys() - expected.labels.keys()
    return (wrong | unexpected) - expected.forgotten


def _lives(events: Iterable[UserEvent]) -> list[list[_Erasable]]:
    """Part one user's events where the user is forgotten.

    What comes only then, but happened before, is dropped.
    """
    lives: list[list[_Erasable]] = [[]]
    forgotten_ms = 0
    for event in events:
        if isinstance(event, Forget):
            if event.occurred_at > forgotten_ms:  # otherwise the request is repeated
                forgotten_ms = event.occurred_at
                lives.append([])
        elif isinstance(event, _Erasable) and event.occurred_at > forgotten_ms:
            lives[-1].append(event)
    return lives


def _unforgotten(
    lived: Iterable[_Erasable], events: Iterable[UserEvent]
) -> list[_Erasable]:
    """Return what happened after the last erasure request, though it came before it.

    Sequences and exposures are erased by time; counters, which cannot be split, by order.
    """
    erased_ms = [event.occurred_at for event in events if isinstance(event, Forget)]
    return [each for each in lived if each.occurred_at > max(erased_ms, default=0)]


def _distinct(life: Sequence[_Erasable]) -> list[Impression | Click]:
    """Return the first impression and the first click of each identity."""
    shown = _grouped((e for e in life if isinstance(e, Impression)), identity)
    clicked = _grouped((e for e in life if isinstance(e, Click)), identity)
    return [*(same[0] for same in shown.values()), *(same[0] for same in clicked.values())]


def _labels(life: Sequence[_Erasable], window_ms: int) -> dict[Identity, ExpectedLabel]:
    """Return each impression's label. 2: clicked by the window's end; 1: later; 0: not."""
    labels = {}
    shown = _grouped((e for e in life if isinstance(e, Impression)), identity)
    clicked = _grouped((e for e in life if isinstance(e, Click)), identity)
    for key, (first, *_) in shown.items():
        end = first.occurred_at + window_ms
        times = [each.occurred_at for each in clicked.get(key, [])]
        in_time = [at for at in times if at <= end]
        revision = 2 if in_time else 1 if times else 0
        labels[key] = ExpectedLabel(
            shown=first, revision=revision, matured_at=frozenset(in_time or times or [end])
        )
    return labels


def _latest(life: Sequence[_Erasable], config: StreamConfig) -> tuple[SequenceElement, ...]:
    """Return the last L distinct behaviours; of equal ones the largest value."""
    values: dict[tuple[int, int, int], list[float]] = {}
    for each in life:
        if isinstance(each, Impression):
            continue
        action = "click" if isinstance(each, Click) else each.action
        code = action_code(action, config.action_codes)
        key = (each.occurred_at, item_key(each.item_id), code)
        seen = values.setdefault(key, [])
        if isinstance(each, Behavior) and each.value is not None:
            seen.append(each.value)
    return tuple(
        SequenceElement(
            occurred_at=at, item_key=key, action=action, value=max(seen, default=None)
        )
        for (at, key, action), seen in sorted(values.items())[-config.sequence_length :]
    )


def _shown(life: Sequence[_Erasable], length: int) -> tuple[SequenceElement, ...]:
    """Return the last ``length`` exposures; an item shown twice at an instant is one."""
    shown = (each for each in life if isinstance(each, Impression))
    exposures = {(each.occurred_at, item_key(each.item_id)) for each in shown}
    return tuple(
        SequenceElement(occurred_at=at_ms, item_key=key, action=SHOWN)
        for at_ms, key in sorted(exposures)[-length:]
    )


def _grouped(
    values: Iterable[_Value], key: Callable[[Any], _Key]
) -> dict[_Key, list[_Value]]:
    groups: dict[_Key, list[_Value]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups
