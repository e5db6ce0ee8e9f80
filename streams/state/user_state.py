"""Event → a user's row: the last behaviours and exposures, counters and the last erasure.

One row, so that it changes as a whole: what a request reads is of one instant.
"""

from msgspec.structs import replace

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import Click, Forget, Impression, item_key
from srp4ctr.streams.state.counters import Activity, count
from srp4ctr.streams.state.sequences import (
    EMPTY,
    SHOWN,
    BehaviorSequence,
    SequenceElement,
    element_of,
    later,
    merge,
)


class UserState(Activity, frozen=True, kw_only=True, gc=False):
    """A user's row: counters, which are fields of its own, and sequences."""

    sequence: BehaviorSequence = EMPTY
    """What the user did."""
    exposures: BehaviorSequence = EMPTY
    """What the user was shown."""
    forgotten_at_ms: int = 0
    """Until when an erasure request of the user reaches, whenever the events come."""
    forgotten_offset: int = -1
    """The offset of that request."""


def fold(
    user: UserState, logged: LoggedEvent, config: StreamConfig, *, is_counted: bool
) -> UserState:
    """Return ``user`` after one more event; the same object if it changes nothing.

    One that was folded before changes nothing: counters know it by its offset, sequences
    have it. A duplicate, which is not ``is_counted``, may be a behaviour at another time.
    """
    event, offset = logged.event, logged.offset
    at_ms = event.occurred_at
    if isinstance(event, Forget):
        return _forgotten(user, at_ms, offset)
    if at_ms <= user.forgotten_at_ms:
        return user
    is_click = isinstance(event, Click)
    if isinstance(event, Impression):
        if not is_counted:
            return user
        key = item_key(event.item_id)
        shown = SequenceElement(occurred_at=at_ms, item_key=key, action=SHOWN)
        exposures = merge(user.exposures, shown, config.exposure_length)
        changed = {} if exposures is user.exposures else {"exposures": exposures}
    else:
        sequence = merge(user.sequence, element_of(event), config.sequence_length)
        changed = {} if sequence is user.sequence else {"sequence": sequence}
        is_counted = is_counted and is_click
    if is_counted and offset > user.last_offset:
        return count(user, at_ms=at_ms, is_click=is_click, offset=offset, **changed)
    if not changed:
        return user
    # A late event leaves the newest time as it is, yet the store drops an equal version.
    version_us = max(at_ms * 1000, user.version_us + 1)
    last_offset = max(offset, user.last_offset)
    return replace(user, version_us=version_us, last_offset=last_offset, **changed)


def _forgotten(user: UserState, at_ms: int, offset: int) -> UserState:
    """Return ``user`` without counts, and without what was until ``at_ms``."""
    # A rebuild begins with the last request, and meets it again at its own offset.
    is_longer, is_later = at_ms > user.forgotten_at_ms, offset > user.last_offset
    if not (is_longer or is_later):
        return user  # it was folded before
    return replace(
        UserState() if is_later else user,
        sequence=later(user.sequence, at_ms),
        exposures=later(user.exposures, at_ms),
        forgotten_at_ms=at_ms if is_longer else user.forgotten_at_ms,
        forgotten_offset=offset if is_longer else user.forgotten_offset,
        last_offset=max(offset, user.last_offset),
        version_us=max(at_ms * 1000, user.version_us + 1),
    )
