"""Users' rows as bytes, and as the arrays of a request, without a store."""

import math

import pytest
from msgspec.structs import replace

from srp4ctr.errors import ArtifactError
from srp4ctr.features.online import packing
from srp4ctr.features.online.packing import NOBODY, ReadUsers, user_arrays
from srp4ctr.features.tensors.arrays import UserArrays
from srp4ctr.features.tensors.schema import RequestStatus
from srp4ctr.streams.state.user_state import UserState
from tests.features.stored import a_user_who_acted

AT_MS = 1_700_000_000_000
LENGTH, EXPOSURES = 4, 2


def a_user(behaviors: int) -> UserState:
    """Return a user whose behaviours, but for the first, have values; and exposures."""
    return replace(a_user_who_acted(behaviors, AT_MS), version_us=1)


def arrays_of(*users: UserState, after_ms: int = 0) -> UserArrays:
    read = ReadUsers(users=users, missing=RequestStatus.COLD_USER)
    return user_arrays(read, [after_ms] * len(users), LENGTH, EXPOSURES)


@pytest.mark.parametrize("others", [0, 1])  # one full sequence alone is not copied
def test_the_newest_stand_on_the_right_with_their_values(others: int) -> None:
    found = arrays_of(a_user(6), *[NOBODY] * others)
    sequences, exposures = found.sequences, found.exposures
    assert sequences.item_keys[0].tolist() == [102, 103, 104, 105]
    assert sequences.action_codes[0].tolist() == [2, 2, 2, 2]
    assert sequences.values[0].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert exposures.item_keys[0].tolist() == [204, 205]
    assert exposures.shown_at_ms[0].tolist() == [AT_MS + 4, AT_MS + 5]
    if others:
        assert not sequences.item_keys[1].any()


def test_a_behaviour_without_a_value_has_none_and_not_zero() -> None:
    found = arrays_of(a_user(2), a_user(6)).sequences
    assert found.item_keys[0].tolist() == [0, 0, 100, 101]
    assert [math.isnan(value) for value in found.values[0].tolist()] == [True] * 3 + [False]


def test_a_row_that_was_cut_off_anywhere_is_refused() -> None:
    (packed,) = packing.pack_user(a_user(3))
    assert packing.unpack_user(1, packed) == a_user(3)
    head = len(packing.pack_user(NOBODY)[0])
    for end in range(head, len(packed)):
        with pytest.raises(ArtifactError, match="is damaged"):
            packing.unpack_user(1, packed[:end])
