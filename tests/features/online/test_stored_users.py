"""Users whom the stream stored, read from a real store."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.packing import NOBODY, ReadUsers, user_arrays
from srp4ctr.features.tensors.arrays import UserArrays
from srp4ctr.streams.state.counters import count
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import FeatureSink
from srp4ctr.streams.state.user_state import UserState

pytestmark = pytest.mark.redis
AT_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def sink(store_config: FeatureConfig) -> FeatureSink:
    from srp4ctr.features.online.store import FeatureStoreSink

    return FeatureStoreSink(store_config)


def arrays_of(sink: FeatureSink, *user_ids: str, after_ms: int = 0) -> UserArrays:
    """Return the last 4 behaviours and 3 exposures of each user."""
    oldest_ms = [after_ms] * len(user_ids)
    rows = sink.read(user_ids, []).users
    users = [rows.get(user_id, NOBODY) for user_id in user_ids]
    return user_arrays(ReadUsers(users=users, missing="cold_user"), oldest_ms, 4, 3)


def a_user(user_id: str, behaviors: int) -> Rows:
    done = [
        SequenceElement(occurred_at=AT_MS + i, item_key=100 + i, action=2, value=i or None)
        for i in range(behaviors)
    ]
    shown = [
        SequenceElement(occurred_at=AT_MS + i, item_key=200 + i, action=SHOWN)
        for i in range(behaviors)
    ]
    user = count(UserState(), at_ms=AT_MS, is_click=False, offset=7)
    of_user = {"sequence": sequence_of(done), "exposures": sequence_of(shown)}
    return Rows(users={user_id: replace(user, **of_user)})


def test_the_last_behaviours_stand_on_the_right(sink: FeatureSink) -> None:
    for user in (a_user("r-long", 7), a_user("r-short", 2)):
        sink.write(user)
    users = arrays_of(sink, "r-long", "r-nobody", "r-short")
    keys = users.sequences.item_keys.tolist()
    assert keys == [[103, 104, 105, 106], [0, 0, 0, 0], [0, 0, 100, 101]]
    assert users.sequences.action_codes[2].tolist() == [0, 0, 2, 2]
    assert users.sequences.occurred_at_ms[2].tolist() == [0, 0, AT_MS, AT_MS + 1]
    assert users.sequences.values[0].tolist() == [3.0, 4.0, 5.0, 6.0]
    assert math.isnan(users.sequences.values[2, 2])
    assert users.activity.impressions[:, 0].tolist() == [1.0, 0.0, 1.0]
    shown = users.exposures.item_keys.tolist()
    assert shown == [[204, 205, 206], [0, 0, 0], [0, 200, 201]]
    assert users.exposures.shown_at_ms[2].tolist() == [0, AT_MS, AT_MS + 1]
    assert users.statuses == ("ok", "cold_user", "ok")


def test_expired_behaviours_are_padding(sink: FeatureSink) -> None:
    sink.write(a_user("r-old", 3))
    sequences = arrays_of(sink, "r-old", after_ms=AT_MS).sequences
    assert sequences.item_keys.tolist() == [[0, 0, 101, 102]]
    assert sequences.action_codes.tolist() == [[0, 0, 2, 2]]
    assert sequences.occurred_at_ms.tolist() == [[0, 0, AT_MS + 1, AT_MS + 2]]
    np.testing.assert_array_equal(sequences.values, [[math.nan, math.nan, 1.0, 2.0]])
    users = arrays_of(sink, "r-old", after_ms=AT_MS + 2)
    assert not users.sequences.item_keys.any()
    assert users.statuses == ("stale_sequence",)


def test_a_user_with_impressions_and_no_behaviours_is_known(sink: FeatureSink) -> None:
    sink.write(a_user("r-looker", 0))
    users = arrays_of(sink, "r-looker")
    assert users.versions == (f"user={AT_MS * 1000}@7",)
    assert users.statuses == ("empty_sequence",)
    assert not users.sequences.item_keys.any()


def test_times_of_years_are_served_as_those_of_days_are(sink: FeatureSink) -> None:
    years = [
        SequenceElement(occurred_at=AT_MS - age, item_key=1 + n, action=2)
        for n, age in enumerate((800_000_000_000, 100_000_000_000, 0))
    ]
    user = UserState(sequence=sequence_of(years), version_us=1)
    sink.write(Rows(users={"r-years": user}))
    times = arrays_of(sink, "r-years").sequences.occurred_at_ms[0]
    assert times.tolist() == [0, *(each.occurred_at for each in years)]


def test_a_user_s_version_has_the_last_event(sink: FeatureSink) -> None:
    sink.write(a_user("r-version", 2))
    users = arrays_of(sink, "r-nobody", "r-version")
    assert users.versions == ("", f"user={AT_MS * 1000}@7")
