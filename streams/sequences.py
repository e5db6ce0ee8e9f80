"""Event → sequence: a user's last L behaviours, folded so that redelivery is harmless.

A sequence is a set of (occurred_at, item_key, action): merging is idempotent, commutative
and associative, so duplicates, reordering and replays change nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from streams.events import Behavior, Click, action_code, item_key


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SequenceElement:
    """One behaviour in a sequence; its identity is its first three fields."""

    occurred_at: int  # UTC milliseconds
    item_key: int
    action: int  # ``streams.events.action_code``
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviorSequence:
    """A user's last L behaviours, oldest first."""

    elements: tuple[SequenceElement, ...] = ()
    version_us: int = 0
    """Strictly increasing with each stored change: the store's event timestamp, in us."""


def element_of(event: Click | Behavior) -> SequenceElement:
    """Return what ``event`` adds to its user's sequence; a click is an action too."""
    action, value = ("click", None) if isinstance(event, Click) else _deed(event)
    return SequenceElement(
        occurred_at=event.occurred_at,
        item_key=item_key(event.item_id),
        action=action_code(action),
        value=value,
    )


def merge(
    sequence: BehaviorSequence, added: Iterable[SequenceElement], length: int
) -> BehaviorSequence:
    """Return the latest ``length`` distinct elements; the same object if none is new.

    Two elements that differ in ``value`` alone are one: the greater value stays, so that
    the order of arrival does not decide.
    """
    by_identity = {_identity(element): element for element in sequence.elements}
    for element in added:
        seen = by_identity.get(_identity(element))
        if seen is None or _rank(seen) < _rank(element):
            by_identity[_identity(element)] = element
    latest = tuple(by_identity[key] for key in sorted(by_identity)[-length:])
    if latest == sequence.elements:
        return sequence
    newest_us = latest[-1].occurred_at * 1000
    # A late event leaves the newest time as it is, yet the store drops an equal version.
    version = max(newest_us, sequence.version_us + 1)
    return BehaviorSequence(elements=latest, version_us=version)


def _deed(behavior: Behavior) -> tuple[str, float | None]:
    return behavior.action, behavior.value


def _identity(element: SequenceElement) -> tuple[int, int, int]:
    return (element.occurred_at, element.item_key, element.action)


def _rank(element: SequenceElement) -> float:
    return float("-inf") if element.value is None else element.value
