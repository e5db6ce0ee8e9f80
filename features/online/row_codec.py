"""Rows of the stream ↔ hashes in Redis: the keys and fields of each view, in one place.

The fields are in Feast's layout (its "Redis online store format"), so that its clients read
and write the same rows. A row of the stream is one ``Bytes`` feature, whose bytes are
those of ``packing.py``: typed arrays took Feast 1.6 to 2 times the time, and 1.2 (L = 50)
to 1.4 times the memory (L = 200).
"""

import dataclasses
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec.structs import replace

from srp4ctr.errors import ArtifactError
from srp4ctr.features.online import packing
from srp4ctr.features.tensors.vocabulary import parse_attributes
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import ItemPartitionKey
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState

K = TypeVar("K", bound=str | int | ItemPartitionKey)
R = TypeVar("R")

PROJECT = "srp4ctr"
# Feast's ValueType.
_STRING = 2
_INT64 = 4
# Of the fields of Feast's Value, in protobuf.
BYTES_TAG = b"\x0a"
_TEXT_TAG = b"\x12"


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
    part: "View[K, R] | None" = None
    """A view under the same key whose rows are written and read as part of this one's;
    one of version 0 is not there. ``unpack`` takes it last."""
    version_us: Callable[[R], int] = attrgetter("version_us")
    equal_replaces: bool = False  # a row of the stored one's version, as a correction
    damaged: R | None = None
    """What is read where a row cannot be; None: reading it raises ``ArtifactError``."""

    @cached_property
    def fields(self) -> tuple[bytes, ...]:
        """The hash's fields: the time, then the features."""
        return _fields(self.name, self.features)

    @cached_property
    def part_fields(self) -> tuple[bytes, ...]:
        """The time and the features of ``part``."""
        return self.part.fields if self.part else ()

    @cached_property
    def all_fields(self) -> tuple[bytes, ...]:
        """The fields of a row, those of ``part`` last."""
        return (*self.fields, *self.part_fields)

    def key(self, key: K) -> bytes:
        """Return the Redis key; all rows of a user have the same."""
        parts = key if isinstance(key, tuple) else (key,)
        return b"".join([self.names, *map(_key_part, parts), PROJECT.encode()])

    def stored(self, key: K, row: R) -> HashRow:
        """Return ``row`` as it is stored."""
        values = tuple(map(_value, self.pack(row)))
        if self.part and (at_us := self.part.version_us(row)):
            values += (time_of(at_us), *map(_value, self.part.pack(row)))
        return HashRow(key=self.key(key), version_us=self.version_us(row), values=values)

    def loaded(self, values: Sequence[bytes | None]) -> R | None:
        """Return the row in the ``values`` of ``all_fields``; None if there is none."""
        time, width = values[0], len(self.fields)
        try:
            if not (version := version_us(time) if time else 0):
                return None
            of_part = (self.part.loaded(values[width:]),) if self.part else ()
            return self.unpack(version, *map(content_of, values[1:width]), *of_part)
        except (struct.error, DecodeError, IndexError, TypeError, ValueError) as error:
            damage = ArtifactError(f"a row of {self.name} cannot be read: {error}")
            if self.damaged is None:
                raise damage from error
            packing.log_damage(damage)
            return self.damaged

    @cached_property
    def names(self) -> bytes:
        """How the Redis keys of the view's rows begin."""
        names = (_sized(_STRING, name.encode()) for name in self.join_keys)
        return struct.pack("<I", len(self.join_keys)) + b"".join(names)


def _fields(view: str, features: Sequence[str]) -> tuple[bytes, ...]:
    import mmh3  # not at the top: a trainer without the store reads profiles, too

    hashed = (mmh3.hash(f"{view}:{feature}", signed=False) for feature in features)
    return f"_ts:{view}".encode(), *(each.to_bytes(4, "little") for each in hashed)


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
    tag = BYTES_TAG
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


def _unpack_profile(version: int, item_id: str, attributes: str) -> ItemProfile:
    return ItemProfile(
        item_key=item_key(item_id),
        item_id=item_id,
        attributes=parse_attributes(attributes),
        updated_at_ms=version // 1000,
    )


def _unpack_user(
    version: int, packed: bytes, profile: UserState | None = None
) -> UserState:
    """Return a user's row; ``profile`` has the attributes alone."""
    user = packing.unpack_user(version, packed)
    if profile is None:
        return user
    at_ms, text = profile.profile_at_ms, profile.attributes
    return replace(user, attributes=text, profile_at_ms=at_ms)


USER_PROFILES = View[str, UserState](
    name="user_profile",
    join_keys=("user_id",),
    pack=lambda user: [user.attributes],
    unpack=lambda version, text: UserState(attributes=text, profile_at_ms=version // 1000),
    features=("attributes",),
    version_us=lambda user: user.profile_at_ms * 1000,
)
"""A user's attributes as JSON; all views of a user are one hash, read in one step."""
USER_HISTORIES = View[str, UserState](
    name="user_behavior_sequence",
    join_keys=("user_id",),
    pack=packing.pack_user,
    unpack=_unpack_user,
)
"""All of a user but the attributes."""
USERS = dataclasses.replace(USER_HISTORIES, part=USER_PROFILES)
ITEM_ACTIVITY = View[ItemPartitionKey, Activity](
    name="item_activity",
    join_keys=("item_key", "partition"),
    pack=packing.pack_activity,
    unpack=packing.unpack_activity,
)
PROFILES = View[int, ItemProfile](
    name="item_profile",
    join_keys=("item_key",),
    pack=lambda profile: [profile.item_id, json.dumps(dict(profile.attributes))],
    unpack=_unpack_profile,
    features=("item_id", "attributes"),
    version_us=lambda profile: profile.updated_at_ms * 1000,
    equal_replaces=True,
)
ATTRIBUTES = View[int, str](
    name="item_profile",
    join_keys=("item_key",),
    pack=lambda text: [text],
    unpack=lambda _, text: text,
    features=("attributes",),
)
"""Profiles' attributes as JSON, to read."""
VIEWS = (USERS, ITEM_ACTIVITY, PROFILES)
