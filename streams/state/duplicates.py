"""Which events of a partition count: no duplicates, and nothing that was erased.

One rule for the stream, rebuilds, checks and training. An impression or a click is
identified by its user, request and item. It is a duplicate if one of the same identity is
among the ``DUPLICATE_RECORDS`` records of the partition before it, and came after the
user's last erasure request. Offsets decide, and no clock and no setting: all who read the
same records count the same events, however late they read.
"""

from collections.abc import Iterable
from enum import Enum, auto

import xxhash
from preshed.maps import PreshMap

from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import COUNTED, Click, Forget, Impression

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
        # By identity, the last offset, in tables that take a third of a dict's memory. The
        # newer one begins at ``_began`` and spans no more records than matter: when it is
        # full, the older one has expired.
        self._newer, self._older = PreshMap(), PreshMap()
        self._began = 0
        # By user, the erasure requests: at which offset, and until when. Each covers more
        # than those before it, of which at most one still applies.
        self._erasures: dict[str, list[tuple[int, int]]] = {}

    @property
    def erasures(self) -> int:
        """How many erasure requests are held."""
        return sum(map(len, self._erasures.values()))

    def take(self, logged: LoggedEvent) -> Fate:
        """Return what becomes of ``logged``, which comes after all that was taken."""
        event, offset = logged.event, logged.offset
        forgotten_at, erased_until_ms = self._covering(event.user_id, offset)
        if event.occurred_at <= erased_until_ms:
            return Fate.ERASED
        if isinstance(event, Forget):
            self.add_erasure(event.user_id, event.occurred_at, offset)
        if isinstance(event, COUNTED):
            came_at = self._remember(_identity(event), offset)
            if came_at > forgotten_at and came_at >= offset - DUPLICATE_RECORDS:
                return Fate.DUPLICATE
        return Fate.COUNTED

    def judge(self, events: Iterable[LoggedEvent]) -> list[tuple[LoggedEvent, bool]]:
        """Return the ``events`` that were not erased, and whether each counts."""
        fates = [(event, self.take(event)) for event in events]
        return [(e, fate is Fate.COUNTED) for e, fate in fates if fate is not Fate.ERASED]

    def add_erasure(self, user_id: str, until_ms: int, offset: int) -> None:
        """Apply a request that was stored, or is taken, to what comes after it."""
        before = self._erasures.get(user_id, ())
        if any(at <= offset and until >= until_ms for at, until in before):
            return  # a request that covers no more changes nothing
        kept = [(at, until) for at, until in before if at < offset or until > until_ms]
        self._erasures[user_id] = sorted([*kept, (offset, until_ms)])

    def drop_erasures(self, user_id: str) -> None:
        """Drop the requests of a user whose row is read again before the next event."""
        self._erasures.pop(user_id, None)

    def _covering(self, user_id: str, offset: int) -> tuple[int, int]:
        """Return the request that covers most of those before ``offset``, and drop others.

        One that the store had may be met only later, where a batch is read again.
        """
        requests = self._erasures.get(user_id)
        if requests is None or requests[0][0] >= offset:
            return _NEVER, 0
        while len(requests) > 1 and requests[1][0] < offset:
            del requests[0]
        return requests[0]

    def _remember(self, identity: int, offset: int) -> int:
        """Note where ``identity`` came, and return where it came before."""
        came_at = self._newer[identity]
        if came_at is None:
            came_at = self._older[identity]
        if offset - self._began > DUPLICATE_RECORDS:
            self._older, self._newer, self._began = self._newer, PreshMap(), offset
        self._newer[identity] = offset
        return _NEVER if came_at is None else came_at


def _identity(event: Impression | Click) -> int:
    kind = "shown" if isinstance(event, Impression) else "clicked"
    text = f"{kind}\0{event.user_id}\0{event.request_id}\0{event.item_id}"
    return xxhash.xxh3_64_intdigest(text)
