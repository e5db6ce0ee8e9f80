import math
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.features.online import row_codec
from srp4ctr.features.online.row_codec import View
from srp4ctr.streams.events.schema import NUM_ACTION_CODES, item_key
from srp4ctr.streams.state.counters import Activity, Counts
from srp4ctr.streams.state.exposures import Exposures
from srp4ctr.streams.state.sequences import (
    ELEMENT_BYTES,
    BehaviorSequence,
    SequenceElement,
    sequence_of,
)
from srp4ctr.streams.state.state_store import ItemProfile

int64s = st.integers(-(2**63), 2**63 - 1)
counts = st.tuples(*[st.floats(0, 1e12)] * 4)
elements = st.builds(
    SequenceElement,
    occurred_at=int64s,
    item_key=int64s,
    action=st.integers(1, NUM_ACTION_CODES - 1),
    value=st.none() | st.floats(allow_nan=False),
)


R = TypeVar("R")


def again(view: View[Any, R], key: str | int, row: R) -> R | None:
    """Return ``row`` as it is read after it was stored."""
    hashed = view.stored(key, row)
    return view.loaded([row_codec.time_of(hashed.version_us), *hashed.values])


@given(st.lists(elements, max_size=5), st.integers(1, 2**53), int64s, int64s, int64s)
def test_a_sequence_is_the_same_when_unpacked(
    kept: list[SequenceElement],
    version_us: int,
    last_offset: int,
    forgotten_at_ms: int,
    forgotten_offset: int,
) -> None:
    sequence = sequence_of(
        kept,
        version_us=version_us,
        last_offset=last_offset,
        forgotten_at_ms=forgotten_at_ms,
        forgotten_offset=forgotten_offset,
    )
    read = again(row_codec.SEQUENCES, "u1", sequence)
    assert read == sequence
    assert read.elements == tuple(kept)


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
    assert again(row_codec.USER_ACTIVITY, "u1", activity) == activity


@given(st.binary(max_size=64), int64s, int64s, st.integers(1, 2**53))
def test_exposures_are_the_same_when_unpacked(
    packed: bytes, last_offset: int, forgotten_at_ms: int, version_us: int
) -> None:
    exposures = Exposures(
        packed=packed,
        version_us=version_us,
        last_offset=last_offset,
        forgotten_at_ms=forgotten_at_ms,
    )
    assert again(row_codec.EXPOSURES, "u1", exposures) == exposures


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
    element = SequenceElement(occurred_at=1, item_key=2, action=3)
    (packed,) = row_codec.SEQUENCES.pack(sequence_of([element] * 50))
    assert len(packed) == 1 + 3 * 8 + 50 * ELEMENT_BYTES
    (packed,) = row_codec.USER_ACTIVITY.pack(Activity())
    assert len(packed) == 1 + 11 * 8


@pytest.mark.parametrize("packed", [b"", b"\0" * 17, b"\x01" + b"\0" * 16])
def test_a_row_of_another_format_says_what_to_do(packed: bytes) -> None:
    with pytest.raises(ValueError, match="srp4ctr stream rebuild"):
        row_codec.SEQUENCES.unpack(1, packed)
    with pytest.raises(ValueError, match=r"this release reads 2"):
        row_codec.USER_ACTIVITY.unpack(1, packed)


def test_no_value_and_zero_differ() -> None:
    kept = sequence_of(
        (
            SequenceElement(occurred_at=1, item_key=2, action=3, value=value)
            for value in (None, 0.0, -1.5)
        ),
        version_us=1,
    )
    read = again(row_codec.SEQUENCES, "u1", kept)
    assert read is not None
    values = [each.value for each in read.elements]
    assert values == [None, 0.0, -1.5]
    assert not any(value is not None and math.isnan(value) for value in values)


def test_an_empty_sequence_is_a_row_too() -> None:
    empty = BehaviorSequence(version_us=1)
    assert again(row_codec.SEQUENCES, "u1", empty) == empty


def test_a_hash_without_a_time_has_no_row() -> None:
    assert row_codec.SEQUENCES.loaded([None, None]) is None


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
    assert {view.key(user_id) for view in row_codec.USER_VIEWS} == {user}
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
