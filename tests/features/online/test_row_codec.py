import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.features.online import row_codec
from srp4ctr.features.online.feast_import import Value
from srp4ctr.features.online.row_codec import Values
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


def stored(values: Values) -> Values:
    """Return ``values`` as Redis returns them: serialized and parsed."""
    return {
        name: Value.FromString(each.SerializeToString()) for name, each in values.items()
    }


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
    read = row_codec.unpack_sequence(stored(row_codec.pack_sequence(sequence)), version_us)
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
    values = stored(row_codec.pack_activity(activity))
    assert row_codec.unpack_activity(values, version_us) == activity


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
    values = stored(row_codec.pack_exposures(exposures))
    assert row_codec.unpack_exposures(values, version_us) == exposures


def test_a_profile_is_the_same_when_unpacked() -> None:
    profile = ItemProfile(
        item_key=item_key("9"),
        item_id="9",
        attributes={"title": "Ålien", "genre": ("Horror", "Sci-Fi")},
        updated_at_ms=1_700_000_000_123,
    )
    values = stored(row_codec.pack_profile(profile))
    assert row_codec.unpack_profile(values, profile.updated_at_ms * 1000) == profile


@given(st.integers(1, 253_370_764_800_000_000))  # until the year 9999
def test_a_version_is_a_timestamp_to_its_last_microsecond(version_us: int) -> None:
    stored_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=version_us)
    assert row_codec.version_of(stored_at) == version_us


def test_a_row_is_as_small_as_what_it_says() -> None:
    element = SequenceElement(occurred_at=1, item_key=2, action=3)
    packed = row_codec.pack_sequence(sequence_of([element] * 50))[
        row_codec.PACKED
    ].bytes_val
    assert len(packed) == 1 + 3 * 8 + 50 * ELEMENT_BYTES
    packed = row_codec.pack_activity(Activity())[row_codec.PACKED].bytes_val
    assert len(packed) == 1 + 11 * 8


@pytest.mark.parametrize("packed", [b"", b"\0" * 17, b"\x01" + b"\0" * 16])
def test_a_row_of_another_format_says_what_to_do(packed: bytes) -> None:
    values = {row_codec.PACKED: Value(bytes_val=packed)}
    with pytest.raises(ValueError, match="srp4ctr stream rebuild"):
        row_codec.unpack_sequence(values, 1)
    with pytest.raises(ValueError, match=r"this release reads 2"):
        row_codec.unpack_activity(values, 1)


def test_no_value_and_zero_differ() -> None:
    kept = sequence_of(
        SequenceElement(occurred_at=1, item_key=2, action=3, value=value)
        for value in (None, 0.0, -1.5)
    )
    read = row_codec.unpack_sequence(stored(row_codec.pack_sequence(kept)), 0)
    values = [each.value for each in read.elements]
    assert values == [None, 0.0, -1.5]
    assert not any(value is not None and math.isnan(value) for value in values)


def test_an_empty_sequence_is_a_row_too() -> None:
    values = stored(row_codec.pack_sequence(BehaviorSequence()))
    assert row_codec.unpack_sequence(values, 0) == BehaviorSequence()
