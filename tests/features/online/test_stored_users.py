"""Users whom the stream stored, read from a real store."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import redis
from msgspec.structs import replace

from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import request_features, row_codec
from srp4ctr.features.online.packing import NOBODY, ReadUsers, user_arrays
from srp4ctr.features.tensors import item_fields, vocabulary
from srp4ctr.features.tensors.arrays import UserArrays
from srp4ctr.features.tensors.schema import RequestStatus
from srp4ctr.streams.state.counters import count
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import FeatureSink
from srp4ctr.streams.state.user_state import UserState
from tests.features.stored import a_user_who_acted

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
    return user_arrays(
        ReadUsers(users=users, missing=RequestStatus.COLD_USER), oldest_ms, 4, 3
    )


def a_user(user_id: str, behaviors: int) -> Rows:
    acted = a_user_who_acted(behaviors, AT_MS)
    return Rows(users={user_id: count(acted, at_ms=AT_MS, is_click=False, offset=7)})


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
    assert times.tolist() == [0, *(year.occurred_at for year in years)]


def test_a_user_s_version_has_the_last_event(sink: FeatureSink) -> None:
    sink.write(a_user("r-version", 2))
    users = arrays_of(sink, "r-nobody", "r-version")
    assert users.versions == ("", f"user={AT_MS * 1000}@7")


DAMAGES = {
    "cut off": (row_codec.USERS.fields[1], b"\x0a\x02\x03\x03"),
    "a length without an end": (row_codec.USERS.fields[1], b"\x0a\x80"),
    "no time": (row_codec.USERS.fields[0], b"\xff\xff"),
    "attributes that are no UTF-8": (row_codec.USERS.part_fields[1], b"\x12\x02\xff\xfe"),
    "attributes that are no JSON": (row_codec.USERS.part_fields[1], b"\x12\x03abc"),
    "attributes that are a list": (row_codec.USERS.part_fields[1], b"\x12\x03[1]"),
}


def features_of(config: FeatureConfig, folder: Path) -> request_features.RequestFeatures:
    """Return those of a bundle that knows 200 items and a field of users."""
    items = vocabulary.build(dict.fromkeys(range(1, 201), 1), [])
    known = dataclasses.replace(items, user_fields=item_fields.build([{"town": "Ulm"}] * 5))
    vocabulary.save(known, folder / bundle.VOCABULARY_FILE)
    card = bundle.BundleManifest(version="v1", created_at_ms=AT_MS, sizes={"L": 5, "W": 3})
    bundle.write_card(folder, card)
    return request_features.open_bundle(config, folder)


def test_a_key_without_a_hash_is_one_users_damaged_row(
    store_config: FeatureConfig, sink: FeatureSink, tmp_path: Path
) -> None:
    sink.write(a_user("h-good", 2))
    host, _, port = store_config.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.set(row_codec.USERS.key("h-text"), "no hash")
        features = features_of(store_config, tmp_path)
        try:
            for ids in [["h-text"]] * 4 + [["h-good"], ["h-text", "h-good"]]:
                users = features.read(ids, [AT_MS + 10] * len(ids))
                statuses = ["store_unavailable" if i == "h-text" else "ok" for i in ids]
                assert list(users.arrays.statuses) == statuses
        finally:
            features.close()
            client.delete(row_codec.USERS.key("h-text"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_one_users_alone(
    store_config: FeatureConfig, sink: FeatureSink, tmp_path: Path, damage: str
) -> None:
    field, value = DAMAGES[damage]
    ids = ["r-good", "r-damaged", "r-nobody"]
    town = {"attributes": '{"town": "Ulm"}', "profile_at_ms": AT_MS}
    for each in ids[:2]:
        (row,) = a_user(each, 2).users.values()
        sink.write(Rows(users={each: replace(row, **town)}))
    host, _, port = store_config.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.execute_command("HSET", row_codec.USERS.key(ids[1]), field, value)
    features = features_of(store_config, tmp_path)
    try:
        batch = features.assemble(ids, [["1"]] * 3, [AT_MS + 10] * 3)
        users = features.read(ids, [AT_MS + 10] * 3)
    finally:
        features.close()
    for statuses in (batch.statuses, users.arrays.statuses):
        assert statuses == ("ok", "store_unavailable", "cold_user")
    rows, of_users = (
        np.count_nonzero(batch.tensors[name], axis=1).tolist()
        for name in ("history_item_rows", "user_attribute_rows")
    )
    assert (rows, of_users) == ([2, 0, 0], [1, 0, 0])
    versions = [version.partition("items")[0] for version in batch.feature_versions]
    assert versions == [f"user={AT_MS * 1000}@7,", "", ""]
