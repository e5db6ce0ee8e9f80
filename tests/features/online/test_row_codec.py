import dataclasses
from operator import attrgetter
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from srp4ctr.errors import ArtifactError
from srp4ctr.features.online import row_codec
from srp4ctr.features.online.packing import DAMAGED, MAX_STORED_MS
from srp4ctr.features.online.row_codec import View
from srp4ctr.streams.events.schema import NUM_ACTION_CODES, item_key
from srp4ctr.streams.state.counters import Activity, Counts
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState

int64s = st.integers(-(2**63), 2**63 - 1)
times = st.integers(0, MAX_STORED_MS)
counts = st.tuples(*[st.floats(0, 1e12)] * 4)
elements = st.builds(
    SequenceElement,
    occurred_at=times,
    item_key=int64s,
    action=st.integers(1, NUM_ACTION_CODES - 1),
    value=st.none() | st.floats(allow_nan=False),
)


# Other work may share the machine.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
R = TypeVar("R")


def again(view: View[Any, R], key: Any, row: R) -> R | None:
    """Return ``row`` as it is read after it was stored."""
    hashed = view.stored(key, row)
    width = len(view.fields) - 1
    own, part = hashed.values[:width], hashed.values[width:]
    of_part = part or [None] * len(view.part_fields)
    time = row_codec.time_of(hashed.version_us)
    return view.loaded([time, *own, *of_part])


@BUSY
@given(
    st.lists(elements, max_size=5),
    st.lists(elements, max_size=5),
    counts,
    counts,
    st.tuples(times, *[int64s] * 4),
    st.integers(1, 2**53),
)
def test_a_user_is_the_same_when_unpacked(
    done: list[SequenceElement],
    shown: list[SequenceElement],
    impressions: Counts,
    clicks: Counts,
    numbers: tuple[int, ...],
    version_us: int,
) -> None:
    exposures = [replace(each, action=SHOWN, value=None) for each in shown]
    user = UserState(
        sequence=sequence_of(sorted(done, key=attrgetter("occurred_at"))),
        exposures=sequence_of(sorted(exposures, key=attrgetter("occurred_at"))),
        impressions=impressions,
        clicks=clicks,
        counted_at_ms=numbers[0],
        first_seen_ms=numbers[1],
        last_offset=numbers[2],
        forgotten_at_ms=numbers[3],
        forgotten_offset=numbers[4],
        version_us=version_us,
    )
    assert again(row_codec.USERS, "u1", user) == user


@given(st.text(), st.integers(2, 253_370_764_800_000))  # until the year 9999
def test_a_users_attributes_are_the_same_when_unpacked(attributes: str, at_ms: int) -> None:
    user = UserState(version_us=1, attributes=attributes, profile_at_ms=at_ms)
    assert again(row_codec.USERS, "u1", user) == user


@given(counts, counts, int64s, int64s, int64s, st.integers(1, 2**53))
def test_an_activity_is_the_same_when_unpacked(
    impressions: Counts,
    clicks: Counts,
    counted_at_ms: int,
    first_seen_ms: int,
    last_offset: int,
    version_us: int,
) -> None:
    activity = Activity(
        impressions=impressions,
        clicks=clicks,
        counted_at_ms=counted_at_ms,
        first_seen_ms=first_seen_ms,
        last_offset=last_offset,
        version_us=version_us,
    )
    assert again(row_codec.ITEM_ACTIVITY, (1, 2), activity) == activity


def test_a_profile_is_the_same_when_unpacked() -> None:
    profile = ItemProfile(
        item_key=item_key("9"),
        item_id="9",
        attributes={"title": "Ålien", "genre": ("Horror", "Sci-Fi")},
        updated_at_ms=1_700_000_000_123,
    )
    assert again(row_codec.PROFILES, profile.item_key, profile) == profile


@given(st.integers(1, 253_370_764_800_000_000))  # until the year 9999
def test_a_version_is_a_timestamp_to_its_last_microsecond(version_us: int) -> None:
    assert row_codec.version_us(row_codec.time_of(version_us)) == version_us


def test_a_row_is_as_small_as_what_it_says() -> None:
    done = [SequenceElement(occurred_at=1, item_key=2, action=3)] * 50
    shown = [SequenceElement(occurred_at=1, item_key=2, action=SHOWN)] * 50
    user = UserState(sequence=sequence_of(done), exposures=sequence_of(shown))
    (packed,) = row_codec.USERS.pack(user)
    assert len(packed) == 135 + 50 * 13 + 50 * 12
    (packed,) = row_codec.ITEM_ACTIVITY.pack(Activity())
    assert len(packed) == 1 + 11 * 8


@pytest.mark.parametrize("packed", [b"\0" * 17, b"\x03" + b"\0" * 16])
def test_a_row_of_another_format_says_what_to_do(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"this release reads 4: .*docs/upgrade\.md"):
        row_codec.USERS.unpack(1, packed)
    with pytest.raises(ValueError, match=r"this release reads 2"):
        row_codec.ITEM_ACTIVITY.unpack(1, packed)


DAMAGED_FIELDS = {
    "cut off": (1, row_codec._value(b"\x04 too short")),
    "empty": (1, b"\x0a"),
    "a length without an end": (1, b"\x0a\x80"),
    "another format": (1, b"by hand"),
    "no time": (0, b"\xff\xff"),
    "no UTF-8": (3, b"\x12\x02\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGED_FIELDS)
def test_a_damaged_row_says_of_which_view_or_is_another_one(damage: str) -> None:
    user = UserState(version_us=1, attributes="{}", profile_at_ms=1)
    time, *values = row_codec.time_of(1), *row_codec.USERS.stored("u1", user).values
    fields = [time, *values]
    assert row_codec.USERS.loaded(fields) == user
    place, value = DAMAGED_FIELDS[damage]
    fields[place] = value
    with pytest.raises(ArtifactError, match="user_behavior_sequence cannot be read"):
        row_codec.USERS.loaded(fields)
    assert dataclasses.replace(row_codec.USERS, damaged=DAMAGED).loaded(fields) is DAMAGED


@pytest.mark.parametrize("place", [109, 122])  # the widths of behaviours and exposures
def test_times_that_take_five_bytes_are_damage_although_the_length_agrees(
    place: int,
) -> None:
    done = [SequenceElement(occurred_at=1, item_key=2, action=3)] * 8
    shown = [SequenceElement(occurred_at=1, item_key=2, action=SHOWN)] * 8
    user = UserState(sequence=sequence_of(done), exposures=sequence_of(shown))
    (packed,) = row_codec.USERS.pack(user)
    assert isinstance(packed, bytes)
    assert packed[place] == 4
    damaged = packed[:place] + b"\x05" + packed[place + 1 :] + bytes(8)
    with pytest.raises(ArtifactError, match="neither 4 nor 8 bytes"):
        row_codec.USERS.unpack(1, damaged)


def test_no_value_and_zero_differ() -> None:
    kept = [
        SequenceElement(occurred_at=n, item_key=2, action=3, value=value)
        for n, value in enumerate((None, 0.0, -1.5))
    ]
    user = UserState(sequence=sequence_of(kept), version_us=1)
    read = again(row_codec.USERS, "u1", user)
    assert read is not None
    assert [element.value for element in read.sequence.elements] == [None, 0.0, -1.5]


def test_an_empty_user_is_a_row_too() -> None:
    empty = UserState(version_us=1)
    assert again(row_codec.USERS, "u1", empty) == empty


def test_a_hash_without_a_time_has_no_row() -> None:
    assert row_codec.USERS.loaded([None] * 4) is None
    assert row_codec.USER_HISTORIES.loaded([None] * 2) is None


@settings(deadline=None)  # the first call imports mmh3
@given(st.text(), int64s, st.integers(0, 2**31))
def test_keys_are_feast_s(user_id: str, key: int, partition: int) -> None:
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    def theirs(names: list[str], values: list[Value]) -> Any:
        entity = EntityKey(join_keys=names, entity_values=values)
        return _redis_key(row_codec.PROJECT, entity)

    user = theirs(["user_id"], [Value(string_val=user_id)])
    assert row_codec.USERS.key(user_id) == user
    item = theirs(["item_key"], [Value(int64_val=key)])
    assert row_codec.PROFILES.key(key) == item
    share = [Value(int64_val=key), Value(int64_val=partition)]
    assert row_codec.ITEM_ACTIVITY.key((key, partition)) == theirs(
        ["item_key", "partition"], share
    )


@given(st.binary(max_size=400) | st.text(max_size=400))
def test_values_are_feast_s(content: bytes | str) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    stored = row_codec._value(content)
    if isinstance(content, bytes):
        theirs: Any = Value(bytes_val=content)
    else:
        theirs = Value(string_val=content)
    assert Value.FromString(stored) == theirs
    assert row_codec.content_of(stored) == content
