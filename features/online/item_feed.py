"""Items' changed rows ↔ entries of the stream of changes, and rows or entries → arrays.

A writer of items' rows adds them to the stream in the same moment, values included, so
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

from srp4ctr.features.online import packing, row_codec
from srp4ctr.features.online.row_codec import ITEM_ACTIVITY, PROFILES, HashRow
from srp4ctr.features.tensors.vocabulary import parse_attributes

LOG = logging.getLogger(__name__)
_MAX_PARTITIONS = 1 << 16  # a row of Feast's own writers may hold anything
SHARE = np.dtype(
    [
        ("item_key", "<i8"),
        ("partition", "<i8"),
        ("version_us", "<i8"),
        ("impressions", "<f8", 4),
        ("clicks", "<f8", 4),
        ("counted_at_ms", "<i8"),
        ("first_seen_ms", "<i8"),
        ("last_offset", "<i8"),
    ]
)
# An entry of the stream has rows as they are stored; the number is that of its format:
# fields of another one are not read.
STREAM = b"srp4ctr:item-changes"
# Of a chunk each: 45 MB at the very most. A reader further behind reads all rows instead.
KEPT_ENTRIES = {"maxlen": 2000, "approximate": True}
_COUNTERS_ENTRY = b"counters-1"
_PROFILES_ENTRY = b"profiles-1"
_SHARE_BEGINS = ITEM_ACTIVITY.names
_PROFILE_BEGINS = PROFILES.names
# Where a Redis key has its numbers: behind the names, each with a head of 8 bytes.
_SHARE_KEY = len(_SHARE_BEGINS) + 8
_PROFILE_KEY = len(_PROFILE_BEGINS) + 8
_SHARE_HEAD = row_codec.BYTES_TAG + bytes([packing.ACTIVITY.size, packing.ITEM_FORMAT])
# All that has an item's key: 1 and 2 names, of which "item_key" is the first.
KEYS_PATTERN = b"?" + _PROFILE_BEGINS[1:] + b"*"


class StoredProfile(msgspec.Struct, frozen=True, array_like=True):
    """An item's attributes as JSON, or "" for none."""

    item_key: int
    version_us: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changes:
    """Rows of items, in any order, with any repetition."""

    shares: NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=SHARE))
    """Of ``SHARE``: an item's counters of one partition."""
    profiles: Sequence[StoredProfile] = ()


def entry_of(fields: Sequence[bytes], rows: Iterable[HashRow]) -> dict[bytes, bytes]:
    """Return the stream's entry of ``rows`` with ``fields``; empty if none is an item's."""
    if fields is ITEM_ACTIVITY.fields:
        return {_COUNTERS_ENTRY: b"".join(map(_share_bytes, rows))}
    if fields is PROFILES.fields:
        return {_PROFILES_ENTRY: msgspec.msgpack.encode([*map(_profile_of, rows)])}
    return {}


def read_entries(entries: Iterable[Mapping[bytes, bytes]]) -> Changes:
    """Return the rows in ``entries``."""
    counters, profiles = [], []
    for entry in entries:
        counters.append(entry.get(_COUNTERS_ENTRY, b""))
        if _PROFILES_ENTRY in entry:
            profiles += msgspec.msgpack.decode(
                entry[_PROFILES_ENTRY], type=list[StoredProfile]
            )
    shares = np.frombuffer(b"".join(counters), dtype=SHARE)
    partitions = shares["partition"]
    is_sound = (partitions >= 0) & (partitions < _MAX_PARTITIONS)
    for name in ("counted_at_ms", "first_seen_ms"):  # compiled.c subtracts them
        is_sound &= (shares[name] >= 0) & (shares[name] <= packing.MAX_STORED_MS)
    for name in ("impressions", "clicks"):
        counts = shares[name]
        is_sound &= ((counts >= 0.0) & (counts < np.inf)).all(axis=1)
    return Changes(
        shares=shares[is_sound & (shares["item_key"] != 0)],
        profiles=[
            profile for profile in profiles if profile.item_key and _is_readable(profile)
        ],
    )


def is_share(key: bytes) -> bool:
    """Return whether a Redis key is one of items' counters."""
    return key.startswith(_SHARE_BEGINS) and _is_ours(key, _SHARE_KEY + 24)


def is_profile(key: bytes) -> bool:
    """Return whether a Redis key is one of items' profiles."""
    return key.startswith(_PROFILE_BEGINS) and _is_ours(key, _PROFILE_KEY + 8)


def stored_changes(rows: Iterable[HashRow]) -> Changes:
    """Return the changes that ``rows``, as they are stored, are; damaged ones are none."""
    counters, profiles = [], []
    for row in rows:
        if is_share(row.key):
            counters.append(_share_bytes(row))
        else:
            profiles.append(_profile_of(row))
    if b"" in counters:
        LOG.warning("rows of items' counters are damaged, or of another release")
    return read_entries(
        [
            {
                _COUNTERS_ENTRY: b"".join(counters),
                _PROFILES_ENTRY: msgspec.msgpack.encode(profiles),
            }
        ]
    )


def _share_bytes(row: HashRow) -> bytes:
    """Return a row of counters as ``SHARE`` has it; b"" if it is damaged."""
    at, value = _SHARE_KEY, row.values[0]
    if not (value.startswith(_SHARE_HEAD) and len(value) == packing.ACTIVITY.size + 2):
        return b""
    version = row.version_us.to_bytes(8, "little", signed=True)
    return b"".join((row.key[at : at + 8], row.key[at + 16 : at + 24], version, value[3:]))


def _profile_of(row: HashRow) -> StoredProfile:
    """Return the profile in ``row``, whose values end with the attributes."""
    key = row.key[_PROFILE_KEY : _PROFILE_KEY + 8]
    text = row_codec.content_of(row.values[-1])
    return StoredProfile(
        item_key=int.from_bytes(key, "little", signed=True),
        version_us=row.version_us,
        text=text if isinstance(text, str) else "",  # of none it is b""
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
