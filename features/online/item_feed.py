"""The stream of items' changed rows, or the rows themselves → arrays.

Whoever stores items' rows adds them to the stream in the same moment, values included, so
that a reader of the stream needs no read of a row. A row is copied as it is stored, never
decoded in Python: a batch of counters is one array of ``SHARE``.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.online import row_codec
from srp4ctr.features.online.packing import MAX_STORED_MS
from srp4ctr.features.online.row_codec import (
    COUNTERS_ENTRY,
    PROFILE_KEY,
    PROFILES_ENTRY,
    SHARE_KEY,
    HashRow,
    StoredProfile,
)
from srp4ctr.features.tensors.vocabulary import parse_attributes

LOG = logging.getLogger(__name__)
_MAX_PARTITIONS = 1 << 16  # a row of Feast's own writers may hold anything
SHARE = np.dtype(
    [
        *(("item_key", "<i8"), ("partition", "<i8"), ("version_us", "<i8")),
        *(("impressions", "<f8", 4), ("clicks", "<f8", 4)),
        *(("counted_at_ms", "<i8"), ("first_seen_ms", "<i8"), ("last_offset", "<i8")),
    ]
)
_SHARE_BEGINS, _PROFILE_BEGINS = (
    view.names for view in (row_codec.ITEM_ACTIVITY, row_codec.PROFILES)
)
# All that has an item's key: 1 and 2 names, of which "item_key" is the first.
KEYS_PATTERN = b"?" + _PROFILE_BEGINS[1:] + b"*"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changes:
    """Rows of items, in any order, with any repetition."""

    shares: NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=SHARE))
    """Of ``SHARE``: an item's counters of one partition."""
    profiles: Sequence[StoredProfile] = ()


def read_entries(entries: Iterable[Mapping[bytes, bytes]]) -> Changes:
    """Return the rows in ``entries``."""
    counters, profiles = [], []
    for entry in entries:
        counters.append(entry.get(COUNTERS_ENTRY, b""))
        if PROFILES_ENTRY in entry:
            profiles += msgspec.msgpack.decode(
                entry[PROFILES_ENTRY], type=list[StoredProfile]
            )
    shares = np.frombuffer(b"".join(counters), dtype=SHARE)
    partitions = shares["partition"]
    is_sound = (partitions >= 0) & (partitions < _MAX_PARTITIONS)
    for name in ("counted_at_ms", "first_seen_ms"):  # compiled.c subtracts them
        is_sound &= (shares[name] >= 0) & (shares[name] <= MAX_STORED_MS)
    for name in ("impressions", "clicks"):
        counts = shares[name]
        is_sound &= ((counts >= 0.0) & (counts < np.inf)).all(axis=1)
    return Changes(
        shares=shares[is_sound & (shares["item_key"] != 0)],
        profiles=[each for each in profiles if each.item_key and _is_readable(each)],
    )


def is_share(key: bytes) -> bool:
    """Return whether a Redis key is one of items' counters."""
    return key.startswith(_SHARE_BEGINS) and _is_ours(key, SHARE_KEY + 24)


def is_profile(key: bytes) -> bool:
    """Return whether a Redis key is one of items' profiles."""
    return key.startswith(_PROFILE_BEGINS) and _is_ours(key, PROFILE_KEY + 8)


def stored_changes(rows: Iterable[HashRow]) -> Changes:
    """Return the changes that ``rows``, as they are stored, are; damaged ones are none."""
    counters, profiles = [], []
    for row in rows:
        if is_share(row.key):
            counters.append(row_codec.share_bytes(row))
        else:
            profiles.append(row_codec.profile_of(row))
    if b"" in counters:
        LOG.warning("rows of items' counters are damaged, or of another release")
    return read_entries(
        [
            {
                COUNTERS_ENTRY: b"".join(counters),
                PROFILES_ENTRY: msgspec.msgpack.encode(profiles),
            }
        ]
    )


def _is_ours(key: bytes, length: int) -> bool:
    return len(key) == length + len(row_codec.PROJECT) and key.endswith(
        row_codec.PROJECT.encode()
    )


def _is_readable(profile: StoredProfile) -> bool:
    try:
        parse_attributes(profile.text)
    except (ValueError, TypeError, AttributeError) as error:
        LOG.warning("the attributes of item %s are damaged: %r", profile.item_key, error)
        return False
    return True
