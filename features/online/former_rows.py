"""Users' rows of the former release → today's: three views of a user became one.

Only to read: a row is written in today's format when an event next changes it. It goes
with the release after 0.3.
"""

import struct

from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement, sequence_of
from srp4ctr.streams.state.user_state import UserState

FORMAT = 2
VIEWS = ("user_activity", "user_exposures")
"""Besides the one whose name is still in use."""
# The format's number, last_offset, forgotten_at_ms and forgotten_offset; then elements:
# occurred_at, item_key, value (NaN: none), action.
_SEQUENCE, _ELEMENT = struct.Struct("<B3q"), struct.Struct("<qqdB")
# The format's number, last_offset and forgotten_at_ms; then shown_at and item_key.
_EXPOSURES, _EXPOSURE = struct.Struct("<B2q"), struct.Struct("<qq")


def unpack(version_us: int, packed: bytes, counted: Activity, shown: bytes) -> UserState:
    """Return a user's row of the former views, each of which may be missing."""
    last_offset, forgotten_at_ms, forgotten_offset = -1, 0, -1
    if packed:
        _, last_offset, forgotten_at_ms, forgotten_offset = _SEQUENCE.unpack_from(packed)
    elements = [
        SequenceElement(
            occurred_at=at_ms,
            item_key=key,
            action=action,
            value=value if value == value else None,
        )
        for at_ms, key, value, action in _ELEMENT.iter_unpack(packed[_SEQUENCE.size :])
    ]
    exposures = [
        SequenceElement(occurred_at=at_ms, item_key=key, action=SHOWN)
        for at_ms, key in _EXPOSURE.iter_unpack(shown[_EXPOSURES.size :])
    ]
    shown_offset = _EXPOSURES.unpack_from(shown)[1] if shown else -1
    return UserState(
        impressions=counted.impressions,
        clicks=counted.clicks,
        counted_at_ms=counted.counted_at_ms,
        first_seen_ms=counted.first_seen_ms,
        last_offset=max(last_offset, counted.last_offset, shown_offset),
        version_us=version_us,
        sequence=sequence_of(elements),
        exposures=sequence_of(exposures),
        forgotten_at_ms=forgotten_at_ms,
        forgotten_offset=forgotten_offset,
    )
