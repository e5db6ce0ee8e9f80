import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.embedded import ports
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import request_features
from srp4ctr.features.online.reader import StoreReader
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity, count, total
from srp4ctr.streams.state.exposures import Exposures, show
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import BehaviorSequence, SequenceElement, merge
from srp4ctr.streams.state.state_store import FeatureSink, ItemProfile

pytestmark = pytest.mark.redis
AT_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def sink(store_config: FeatureConfig) -> FeatureSink:
    from srp4ctr.features.online.store import FeatureStoreSink

    return FeatureStoreSink(store_config)


@pytest.fixture(scope="module")
def reader(store_config: FeatureConfig) -> StoreReader:
    return StoreReader(store_config)


def a_share(partition: int, *clicks: bool) -> Activity:
    activity = Activity()
    for offset, is_click in enumerate(clicks):
        at_ms = AT_MS + 60_000 * partition + offset
        activity = count(activity, at_ms=at_ms, is_click=is_click, offset=offset)
    return activity


def a_user(user_id: str, behaviors: int) -> Rows:
    elements = [
        SequenceElement(occurred_at=AT_MS + i, item_key=100 + i, action=2, value=i or None)
        for i in range(behaviors)
    ]
    exposures = Exposures()
    for i in range(behaviors):
        exposures = show(exposures, AT_MS + i, 200 + i, length=50, offset=5)
    return Rows(
        exposures={user_id: exposures} if behaviors else {},
        sequences={user_id: merge(BehaviorSequence(), elements, length=50, offset=7)},
        activities={user_id: count(Activity(), at_ms=AT_MS, is_click=False, offset=1)},
    )


def test_the_last_behaviours_stand_on_the_right(
    sink: FeatureSink, reader: StoreReader
) -> None:
    for user in (a_user("r-long", 7), a_user("r-short", 2)):
        sink.write(user)
    users = reader.read_users(["r-long", "r-nobody", "r-short"], 4, 3)
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


def test_a_user_of_impressions_alone_is_known_though_without_history(
    sink: FeatureSink, reader: StoreReader
) -> None:
    sink.write(Rows(activities=a_user("r-looker", 0).activities))
    users = reader.read_users(["r-looker"], 4, 3)
    assert users.versions == (f"activity={AT_MS * 1000}@1",)
    assert not users.sequences.item_keys.any()


def test_a_users_version_tells_of_each_row_the_last_event_folded_into_it(
    sink: FeatureSink, reader: StoreReader
) -> None:
    sink.write(a_user("r-told", 2))
    users = reader.read_users(["r-nobody", "r-told"], 4, 3)
    sequence, activity = (AT_MS + 1) * 1000, AT_MS * 1000
    told = f"sequence={sequence}@7,activity={activity}@1,exposures={sequence}@5"
    assert users.versions == ("", told)


def test_an_items_shares_are_summed_as_streams_sums_them(
    sink: FeatureSink, reader: StoreReader
) -> None:
    shares = {(-77, 0): a_share(0, False, True), (-77, 2): a_share(2, False, False, True)}
    sink.write(Rows(shares=shares))
    expected = total(list(shares.values()))
    items = reader.read_items([-78, -77])
    np.testing.assert_allclose(items.activity.impressions[1], expected.impressions)
    np.testing.assert_allclose(items.activity.clicks[1], expected.clicks)
    assert items.activity.counted_at_ms.tolist() == [0, expected.counted_at_ms]
    assert items.activity.first_seen_ms.tolist() == [0, expected.first_seen_ms]


def test_a_bundle_serves_what_the_stream_stored(
    sink: FeatureSink, store_config: FeatureConfig, tmp_path: Path
) -> None:
    key = item_key("film")
    sink.write(a_user("r-served", 3))
    sink.write(Rows(shares={(key, 1): a_share(1, False)}))
    profile = ItemProfile(
        item_key=key, item_id="film", attributes={"genre": "War"}, updated_at_ms=AT_MS
    )
    sink.write_profiles([profile])
    words = vocabulary.build({key: 1}, [{"genre": "War"}] * 5)
    vocabulary.save(words, tmp_path / bundle.VOCABULARY_FILE)
    card = bundle.BundleManifest(version="v1", created_at_ms=AT_MS, sizes={"L": 5, "W": 3})
    bundle.write_card(tmp_path, card)
    features = request_features.open_bundle(store_config, tmp_path)
    batch = features.assemble(["r-served"], [["film", "else"]], [AT_MS + 60_000])
    features.close()
    assert batch.statuses == ("ok",)
    assert batch.item_status.tolist() == [[0, 7]]
    assert np.count_nonzero(batch.tensors["history_item_rows"]) == 3


def test_a_bundle_opens_although_the_store_is_down(
    store_config: FeatureConfig, tmp_path: Path
) -> None:
    vocabulary.save(vocabulary.build({1: 1}, []), tmp_path / bundle.VOCABULARY_FILE)
    card = bundle.BundleManifest(version="v1", created_at_ms=AT_MS, sizes={"L": 5, "W": 3})
    bundle.write_card(tmp_path, card)
    with ports.reserved_ports(1) as (closed,):
        down = replace(store_config, redis=f"{ports.HOST}:{closed}")
    features = request_features.open_bundle(down, tmp_path)
    batch = features.assemble(["r-served"], [["film"]])
    features.close()
    assert batch.statuses == ("store_unavailable",)
