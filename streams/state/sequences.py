"""Event → sequence: a user's last L behaviours, folded so that redelivery is harmless.

A sequence is a set of (occurred_at, item_key, action): merging is idempotent, commutative
and associative, so duplicates, reordering and replays change nothing. It is kept packed,
oldest first, as the store has it: a new behaviour is 25 bytes appended.
"""

import math
import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from srp4ctr.streams.events.schema import Behavior, Click, action_code, item_key

# occurred_at (ms), item_key, value (NaN: none), action: little-endian, no padding.
_ELEMENT = struct.Struct("<qqdB")
ELEMENT_BYTES = _ELEMENT.size
_Identity = tuple[int, int, int]


class SequenceElement(msgspec.Struct, frozen=True, kw_only=True, order=True, gc=False):
    """One behaviour in a sequence; its identity is its first three fields."""

    occurred_at: int  # UTC milliseconds
    item_key: int
    action: int  # ``streams.events.schema.action_code``
    value: float | None = None


class BehaviorSequence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A user's last L behaviours, oldest first."""

    packed: bytes = b""
    """25 bytes an element; ``elements`` unpacks them."""
    version_us: int = 0
    """Strictly increasing with each stored change: the store's event timestamp, in us."""
    last_offset: int = -1
    """The user's last event that was folded in when the row was last changed."""
    forgotten_at_ms: int = 0
    """Until when an erasure request of the user reaches, whenever the events come."""
    forgotten_offset: int = -1
    """The offset of that request."""

    @property
    def elements(self) -> tuple[SequenceElement, ...]:
        """The behaviours, oldest first."""
        return tuple(map(_unpacked, _ELEMENT.iter_unpack(self.packed)))


def sequence_of(elements: Iterable[SequenceElement], **fields: Any) -> BehaviorSequence:
    """Return the sequence of ``elements``, which come in order; ``fields`` is the rest."""
    return BehaviorSequence(packed=b"".join(map(_packed, elements)), **fields)


def element_of(event: Click | Behavior) -> SequenceElement:
    """Return what ``event`` adds to its user's sequence; a click is an action too."""
    return SequenceElement(
        occurred_at=event.occurred_at,
        item_key=item_key(event.item_id),
        action=action_code(event.action if isinstance(event, Behavior) else "click"),
        value=event.value if isinstance(event, Behavior) else None,
    )


def merge(
    sequence: BehaviorSequence, added: Iterable[SequenceElement], length: int, offset: int
) -> BehaviorSequence:
    """Return the latest ``length`` distinct elements; the same object if none is new.

    Two elements that differ only in ``value`` are one: the greater value stays, so that
    the order of arrival does not decide. ``offset`` is of the last event in ``added``.
    """
    forgotten_ms = sequence.forgotten_at_ms
    new = sorted((e for e in added if e.occurred_at > forgotten_ms), key=_identity)
    packed = sequence.packed
    if len(new) == 1 and (not packed or new[0].occurred_at > _newest_ms(packed)):
        packed = (packed + _packed(new[0]))[-length * ELEMENT_BYTES :]
    elif new:
        packed = _union(sequence, new, length)
    if packed == sequence.packed:
        return sequence
    # A late event leaves the newest time as it is, yet the store drops an equal version.
    version = max(_newest_ms(packed) * 1000, sequence.version_us + 1)
    return msgspec.structs.replace(
        sequence, packed=packed, version_us=version, last_offset=offset
    )


def forget(sequence: BehaviorSequence, at_ms: int, offset: int) -> BehaviorSequence:
    """Return ``sequence`` without what was until ``at_ms``, whenever it may come."""
    if at_ms <= sequence.forgotten_at_ms:
        return sequence  # requested once more
    return sequence_of(
        (element for element in sequence.elements if element.occurred_at > at_ms),
        version_us=max(at_ms * 1000, sequence.version_us + 1),
        last_offset=offset,
        forgotten_at_ms=at_ms,
        forgotten_offset=offset,
    )


def _union(
    sequence: BehaviorSequence, added: Iterable[SequenceElement], length: int
) -> bytes:
    by_identity = {_identity(element): element for element in sequence.elements}
    for element in added:
        seen = by_identity.get(_identity(element))
        if seen is None or _rank(seen) < _rank(element):
            by_identity[_identity(element)] = element
    latest = sorted(by_identity)[-length:]
    return b"".join(_packed(by_identity[identity]) for identity in latest)


def _packed(element: SequenceElement) -> bytes:
    value = math.nan if element.value is None else element.value
    return _ELEMENT.pack(element.occurred_at, element.item_key, value, element.action)


def _unpacked(fields: tuple[int, int, float, int]) -> SequenceElement:
    at_ms, key, value, action = fields
    return SequenceElement(
        occurred_at=at_ms,
        item_key=key,
        action=action,
        value=None if math.isnan(value) else value,
    )


def _newest_ms(packed: bytes) -> int:
    return int.from_bytes(packed[-ELEMENT_BYTES : 8 - ELEMENT_BYTES], "little", signed=True)


def _identity(element: SequenceElement) -> _Identity:
    return (element.occurred_at, element.item_key, element.action)


def _rank(element: SequenceElement) -> float:
    return float("-inf") if element.value is None else element.value
