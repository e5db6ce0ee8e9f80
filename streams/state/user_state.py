"""Event → a user's row: behaviours and exposures, counters, attributes, the last erasure.

One row, so that it changes as a whole: what a request reads is of one instant.
"""

from typing import Any

from msgspec.structs import replace

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import (
    Behavior,
    Click,
    Forget,
    Impression,
    UserUpdate,
    item_key,
    json_text,
)
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

NO_PARTITION = -1


class UserState(Activity, frozen=True, kw_only=True, gc=False):
    """A user's row: counters, which are fields of its own, sequences and attributes."""

    sequence: BehaviorSequence = EMPTY
    """What the user did."""
    exposures: BehaviorSequence = EMPTY
    """What the user was shown."""
    attributes: str = ""
    """What the user is: ``json_text`` of the latest update; of two at one instant the
    greater, so that the order of arrival does not decide."""
    profile_at_ms: int = 0
    """When that update happened; 0 for none."""
    forgotten_at_ms: int = 0
    """Until when an erasure request of the user reaches, whenever the events come."""
    forgotten_offset: int = -1
    """The offset of that request."""
    partition: int = NO_PARTITION
    """Of the user's events, whose offsets are in the row; NO_PARTITION before the first."""

    def is_of(self, partition: int) -> bool:
        """Return whether events of ``partition`` may be folded into the row.

        Offsets of another partition would make them look counted.
        """
        return self.partition in (NO_PARTITION, partition)


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
    is_shown, is_click = isinstance(event, Impression), isinstance(event, Click)
    if is_shown and not is_counted:
        return user
    changed = _changes(user, event, config)
    is_counted = is_counted and (is_shown or is_click)
    if is_counted and offset > user.last_offset:
        return count(user, at_ms=at_ms, is_click=is_click, offset=offset, **changed)
    if not changed:
        return user
    # A late event leaves the newest time as it is, yet the store drops an equal version.
    version_us = max(at_ms * 1000, user.version_us + 1)
    last_offset = max(offset, user.last_offset)
    return replace(user, version_us=version_us, last_offset=last_offset, **changed)


def _changes(
    user: UserState,
    event: Impression | Click | Behavior | UserUpdate,
    config: StreamConfig,
) -> dict[str, Any]:
    """Return the fields, other than counters, that ``event`` changes."""
    if isinstance(event, UserUpdate):
        text = json_text(event.attributes)
        is_newer = (event.occurred_at, text) > (user.profile_at_ms, user.attributes)
        profile = {"attributes": text, "profile_at_ms": event.occurred_at}
        return profile if is_newer else {}
    if isinstance(event, Impression):
        key, at_ms = item_key(event.item_id), event.occurred_at
        shown = SequenceElement(occurred_at=at_ms, item_key=key, action=SHOWN)
        exposures = merge(user.exposures, shown, config.exposure_length)
        return {} if exposures is user.exposures else {"exposures": exposures}
    element = element_of(event, config.action_codes)
    sequence = merge(user.sequence, element, config.sequence_length)
    return {} if sequence is user.sequence else {"sequence": sequence}


def _forgotten(user: UserState, at_ms: int, offset: int) -> UserState:
    """Return ``user`` without counts, and without what was until ``at_ms``."""
    # A rebuild begins with the last request, and meets it again at its own offset.
    is_longer, is_later = at_ms > user.forgotten_at_ms, offset > user.last_offset
    if not (is_longer or is_later):
        return user  # it was folded before
    stays = user.profile_at_ms > at_ms
    return replace(
        UserState(partition=user.partition) if is_later else user,
        sequence=later(user.sequence, at_ms),
        exposures=later(user.exposures, at_ms),
        attributes=user.attributes if stays else "",
        profile_at_ms=user.profile_at_ms if stays else 0,
        forgotten_at_ms=at_ms if is_longer else user.forgotten_at_ms,
        forgotten_offset=offset if is_longer else user.forgotten_offset,
        last_offset=max(offset, user.last_offset),
        version_us=max(at_ms * 1000, user.version_us + 1),
    )
