"""Rows of the stream ↔ bytes in Redis: the packing of each view, in one place.

The bytes are in Feast's layout (its specification "Redis online store format"), so that
its clients read and write the same rows. A row of the stream is one ``Bytes`` feature: as
typed arrays the same rows took Feast 1.6 to 2 times the time, and 1.2 (L = 50) to 1.4
times the memory (L = 200).
"""

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from srp4ctr.errors import ArtifactError
from srp4ctr.features.tensors.vocabulary import parse_attributes
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.exposures import Exposures
from srp4ctr.streams.state.reducers import ItemPartitionKey
from srp4ctr.streams.state.sequences import BehaviorSequence
from srp4ctr.streams.state.state_store import ItemProfile

K = TypeVar("K", bound=str | int | ItemPartitionKey)
R = TypeVar("R")

PROJECT = "srp4ctr"
_STRING, _INT64 = 2, 4  # Feast's ValueType
_BYTES_TAG, _TEXT_TAG = b"\x0a", b"\x12"  # of the fields of Feast's Value, in protobuf
# Little-endian, no padding. The format's number, last_offset, forgotten_at_ms and
# forgotten_offset; then the elements, packed by streams/state/sequences.py.
_FORMAT = 2
_SEQUENCE_HEAD = struct.Struct("<B3q")
# last_offset and forgotten_at_ms; then what streams/state/exposures.py packs.
_EXPOSURES_HEAD = struct.Struct("<B2q")
# Impressions and clicks at four half-lives, counted_at_ms, first_seen_ms, last_offset.
_ACTIVITY = struct.Struct("<B8d3q")


@dataclass(frozen=True, slots=True, kw_only=True)
class HashRow:
    """A row as fields of a Redis hash."""

    key: bytes
    version_us: int
    values: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class View(Generic[K, R]):
    """One of Feast's views: the keys of its rows, and how they are packed."""

    name: str
    join_keys: tuple[str, ...]
    """In the order of their names."""
    pack: Callable[[R], Sequence[bytes | str]]
    unpack: Callable[..., R]
    """Takes ``version_us`` and the features; equal to the row that was packed."""
    features: tuple[str, ...] = ("packed",)
    version_us: Callable[[R], int] = attrgetter("version_us")

    @cached_property
    def fields(self) -> tuple[bytes, ...]:
        """The hash's fields: the time, then the features."""
        import mmh3  # not at the top: a trainer without the store reads profiles, too

        hashed = (mmh3.hash(f"{self.name}:{each}", signed=False) for each in self.features)
        return f"_ts:{self.name}".encode(), *(h.to_bytes(4, "little") for h in hashed)

    def key(self, key: K) -> bytes:
        """Return the Redis key; all rows of a user have the same."""
        parts = key if isinstance(key, tuple) else (key,)
        return b"".join([self.names, *map(_key_part, parts), PROJECT.encode()])

    def stored(self, key: K, row: R) -> HashRow:
        """Return ``row`` as it is stored."""
        values = tuple(map(_value, self.pack(row)))
        return HashRow(key=self.key(key), version_us=self.version_us(row), values=values)

    def loaded(self, values: Sequence[bytes | None]) -> R | None:
        """Return the row whose ``fields`` are ``values``; None if there is none."""
        time, *features = values
        if not (version := version_us(time or b"")):
            return None
        try:
            return self.unpack(version, *map(content_of, features))
        except struct.error as error:
            raise ArtifactError(f"a row of {self.name} is damaged: {error}") from error

    @cached_property
    def names(self) -> bytes:
        """How the Redis keys of the view's rows begin."""
        names = (_sized(_STRING, name.encode()) for name in self.join_keys)
        return struct.pack("<I", len(self.join_keys)) + b"".join(names)


def time_of(version_us: int) -> bytes:
    """Return a version as Feast stores a row's time."""
    seconds, micros = divmod(version_us, 1_000_000)
    time: bytes = Timestamp(seconds=seconds, nanos=micros * 1000).SerializeToString()
    return time


def version_us(time: bytes) -> int:
    """Return the version in us of a stored time; 0 for none."""
    stored = Timestamp.FromString(time)
    return int(stored.seconds * 1_000_000 + stored.nanos // 1000)


def _key_part(part: str | int) -> bytes:
    if isinstance(part, str):
        return _sized(_STRING, part.encode())
    return _sized(_INT64, part.to_bytes(8, "little", signed=True))


def _sized(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content


def _value(content: bytes | str) -> bytes:
    """Return Feast's Value of ``content``: a tag, its length as a varint, and itself."""
    tag = _BYTES_TAG
    if isinstance(content, str):
        tag, content = _TEXT_TAG, content.encode()
    length, rest = bytearray(tag), len(content)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*length, rest]) + content


def content_of(value: bytes | None) -> bytes | str:
    """Return what Feast's Value holds; b"" for none."""
    if not value:
        return b""
    end = 1
    while value[end] & 0x80:
        end += 1
    content = value[end + 1 :]
    return content.decode() if value[:1] == _TEXT_TAG else content


def _check_format(packed: bytes) -> None:
    if packed[:1] != bytes([_FORMAT]):
        raise ArtifactError(
            f"a row of the store is in format {packed[:1]!r}, this release reads "
            f"{_FORMAT}: empty the store and run `srp4ctr stream rebuild`"
        )


def _pack_activity(activity: Activity) -> list[bytes]:
    times = activity.counted_at_ms, activity.first_seen_ms, activity.last_offset
    return [_ACTIVITY.pack(_FORMAT, *activity.impressions, *activity.clicks, *times)]


def _unpack_activity(version: int, packed: bytes) -> Activity:
    _check_format(packed)
    _, *counts, counted_at_ms, first_seen_ms, last_offset = _ACTIVITY.unpack(packed)
    return Activity(
        impressions=tuple(counts[:4]),
        clicks=tuple(counts[4:]),
        counted_at_ms=counted_at_ms,
        first_seen_ms=first_seen_ms,
        last_offset=last_offset,
        version_us=version,
    )


def _pack_profile(profile: ItemProfile) -> list[str]:
    return [profile.item_id, json.dumps(dict(profile.attributes))]


def _unpack_profile(version: int, item_id: str, attributes: str) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(item_id),
        item_id=item_id,
        attributes=parse_attributes(attributes),
        updated_at_ms=version // 1000,
    )


def _elements_view(
    name: str, kind: type[R], head: struct.Struct, *names: str
) -> View[str, R]:
    """Return the view of users' rows that are a head of ``names``, then elements."""
    make: Callable[..., R] = kind

    def pack(row: Any) -> list[bytes]:
        return [head.pack(_FORMAT, *(getattr(row, each) for each in names)) + row.packed]

    def unpack(version: int, packed: bytes) -> R:
        _check_format(packed)
        fields = dict(zip(names, head.unpack_from(packed)[1:], strict=True))
        return make(packed=packed[head.size :], version_us=version, **fields)

    return View(name=name, join_keys=("user_id",), pack=pack, unpack=unpack)


SEQUENCES = _elements_view(
    "user_behavior_sequence",
    BehaviorSequence,
    _SEQUENCE_HEAD,
    *("last_offset", "forgotten_at_ms", "forgotten_offset"),
)
EXPOSURES = _elements_view(
    "user_exposures", Exposures, _EXPOSURES_HEAD, "last_offset", "forgotten_at_ms"
)
USER_ACTIVITY = View[str, Activity](
    name="user_activity",
    join_keys=("user_id",),
    pack=_pack_activity,
    unpack=_unpack_activity,
)
ITEM_ACTIVITY = View[ItemPartitionKey, Activity](
    name="item_activity",
    join_keys=("item_key", "partition"),
    pack=_pack_activity,
    unpack=_unpack_activity,
)
PROFILES = View[int, ItemProfile](
    name="item_profile",
    join_keys=("item_key",),
    pack=_pack_profile,
    unpack=_unpack_profile,
    features=("item_id", "attributes"),
    version_us=lambda profile: profile.updated_at_ms * 1000,
)
ATTRIBUTES = View[int, str](
    name="item_profile",
    join_keys=("item_key",),
    pack=lambda text: [text],
    unpack=lambda _, text: text,
    features=("attributes",),
)
"""Profiles' attributes as JSON, to read."""
USER_VIEWS = (SEQUENCES, USER_ACTIVITY, EXPOSURES)
VIEWS = (*USER_VIEWS, ITEM_ACTIVITY, PROFILES)

# An entry of the stream of items' changed rows, as they are stored; the number is that of
# its format: fields of another one are not read.
STREAM = b"srp4ctr:item-changes"
COUNTERS_ENTRY, PROFILES_ENTRY = b"counters-1", b"profiles-1"
# Where a Redis key has its numbers: behind the names, each with a head of 8 bytes.
SHARE_KEY, PROFILE_KEY = (len(view.names) + 8 for view in (ITEM_ACTIVITY, PROFILES))
_SHARE_HEAD = _BYTES_TAG + bytes([_ACTIVITY.size, _FORMAT])


class StoredProfile(msgspec.Struct, frozen=True, array_like=True):
    """An item's attributes as JSON, or "" for none."""

    item_key: int
    version_us: int
    text: str


def entry_of(fields: Sequence[bytes], rows: Iterable[HashRow]) -> dict[bytes, bytes]:
    """Return the stream's entry of ``rows`` with ``fields``; empty if none is an item's."""
    if fields is ITEM_ACTIVITY.fields:
        return {COUNTERS_ENTRY: b"".join(map(share_bytes, rows))}
    if fields is PROFILES.fields:
        return {PROFILES_ENTRY: msgspec.msgpack.encode([*map(profile_of, rows)])}
    return {}


def share_bytes(row: HashRow) -> bytes:
    """Return a row of counters as ``item_feed.SHARE`` has it; b"" if it is damaged."""
    at, value = SHARE_KEY, row.values[0]
    if not (value.startswith(_SHARE_HEAD) and len(value) == _ACTIVITY.size + 2):
        return b""
    version = row.version_us.to_bytes(8, "little", signed=True)
    return b"".join((row.key[at : at + 8], row.key[at + 16 : at + 24], version, value[3:]))


def profile_of(row: HashRow) -> StoredProfile:
    """Return the profile in ``row``, whose values end with the attributes."""
    key = row.key[PROFILE_KEY : PROFILE_KEY + 8]
    text = content_of(row.values[-1])
    return StoredProfile(
        item_key=int.from_bytes(key, "little", signed=True),
        version_us=row.version_us,
        text=text if isinstance(text, str) else "",  # of none it is b""
    )
