"""Event → does it count? One rule for the stream, rebuilds, checks and point-in-time.

An impression or a click is identified by its user, request and item. It is a duplicate if
one of the same identity is among the ``DUPLICATE_RECORDS`` records of the partition before
it, and came after the user's last erasure request. Offsets decide, and no clock and no
setting: all who read the same records count the same events, however late they read.
"""

from enum import Enum, auto

import xxhash

from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import Click, Forget, Impression

DUPLICATE_RECORDS = 500_000
"""A backfill may be as long and be published twice. A worker holds up to twice as many
identities of a partition in memory, and reads as many records when it starts."""
_NEVER = -1


class Fate(Enum):
    """What becomes of an event."""

    COUNTED = auto()
    DUPLICATE = auto()
    """Its impression or click has been counted."""
    ERASED = auto()
    """The user requested its erasure before it came."""


class Deduplication:
    """The identities and the erasure requests of one partition that still matter."""

    def __init__(self) -> None:
        # By identity, the last offset. The newer part begins at ``_began`` and spans no
        # more records than matter: when it is full, the older one has expired.
        self._newer: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._began = 0
        # By user, the erasure requests: until when, and at which offset.
        self._erasures: dict[str, set[tuple[int, int]]] = {}

    def take(self, logged: LoggedEvent) -> Fate:
        """Return what becomes of ``logged``, which comes after all that was taken."""
        event, offset = logged.event, logged.offset
        erased_until_ms, forgotten_at = 0, _NEVER
        for until_ms, at in self._erasures.get(event.user_id, ()):
            # Of equal ones the first: a request that covers no more changes nothing.
            if at < offset and (until_ms, -at) > (erased_until_ms, -forgotten_at):
                erased_until_ms, forgotten_at = until_ms, at
        if event.occurred_at <= erased_until_ms:
            return Fate.ERASED
        if isinstance(event, Forget):
            self.add_erasure(event.user_id, event.occurred_at, offset)
        if isinstance(event, Impression | Click):
            came_at = self._remember(_identity(event), offset)
            if came_at > forgotten_at and came_at >= offset - DUPLICATE_RECORDS:
                return Fate.DUPLICATE
        return Fate.COUNTED

    def add_erasure(self, user_id: str, until_ms: int, offset: int) -> None:
        """Apply a request that was stored, or is taken, to what comes after it."""
        self._erasures.setdefault(user_id, set()).add((until_ms, offset))

    def drop_erasures(self, user_id: str) -> None:
        """Drop the requests of a user whose row is read again before the next event."""
        self._erasures.pop(user_id, None)

    def _remember(self, identity: int, offset: int) -> int:
        """Note where ``identity`` came, and return where it came before."""
        came_at = self._newer.get(identity, self._older.get(identity, _NEVER))
        if offset - self._began > DUPLICATE_RECORDS:
            self._older, self._newer, self._began = self._newer, {}, offset
        self._newer[identity] = offset
        return came_at


def _identity(event: Impression | Click) -> int:
    kind = "shown" if isinstance(event, Impression) else "clicked"
    text = f"{kind}\0{event.user_id}\0{event.request_id}\0{event.item_id}"
    return xxhash.xxh3_64_intdigest(text)
