import math
from dataclasses import replace

import pytest

from features.config import FeatureConfig
from local import ports
from streams.activity import Activity, count
from streams.sequences import BehaviorSequence, SequenceElement, merge
from streams.sink import FeatureSink, ItemProfile, ItemShare, UserRow

pytestmark = pytest.mark.redis
AT_MS = 1_700_000_000_123


@pytest.fixture(scope="module")
def sink(store_config: FeatureConfig) -> FeatureSink:
    from features.store import FeatureStoreSink

    return FeatureStoreSink(store_config)


def a_sequence(*values: float | None) -> BehaviorSequence:
    elements = [
        SequenceElement(occurred_at=AT_MS + i, item_key=-(2**62) + i, action=2, value=value)
        for i, value in enumerate(values)
    ]
    return merge(BehaviorSequence(), elements, length=50)


def an_activity(offset: int = 7) -> Activity:
    once = count(Activity(), at_ms=AT_MS, is_click=False, offset=offset - 1)
    return count(once, at_ms=AT_MS + 1000, is_click=True, offset=offset)


def a_user(user_id: str) -> UserRow:
    return UserRow(
        user_id=user_id, sequence=a_sequence(None, 4.5, 0.0), activity=an_activity()
    )


def test_a_written_user_is_read_back_the_same(sink: FeatureSink) -> None:
    user = a_user("ünïcode 7")
    sink.write([user], [])
    assert sink.read_users([user.user_id]) == {user.user_id: user}


def test_an_unknown_user_is_absent_although_redis_answers_nulls(sink: FeatureSink) -> None:
    sink.write([a_user("known")], [])
    assert list(sink.read_users(["known", "never seen"])) == ["known"]
    assert sink.read_item_shares(0, [42]) == {}


def test_a_user_who_only_saw_impressions_has_an_empty_sequence(sink: FeatureSink) -> None:
    user = replace(a_user("looker"), sequence=BehaviorSequence())
    sink.write([user], [])
    assert sink.read_users(["looker"]) == {"looker": user}


def test_versions_keep_their_last_microsecond(sink: FeatureSink) -> None:
    versions = [1_700_000_000_123_000 + i for i in (1, 7, 333, 999)]
    users = [
        replace(a_user(f"v{v}"), sequence=replace(a_sequence(1.0), version_us=v))
        for v in versions
    ]
    sink.write(users, [])
    read = sink.read_users([user.user_id for user in users])
    assert [row.sequence.version_us for row in read.values()] == versions


def test_a_newer_version_replaces_and_an_older_one_does_not(sink: FeatureSink) -> None:
    old = a_user("mover")
    new = replace(old, sequence=merge(old.sequence, a_sequence(1, 2, 3, 4).elements, 50))
    sink.write([new], [])
    sink.write([old], [])
    assert sink.read_users(["mover"])["mover"].sequence == new.sequence


def test_an_item_has_a_share_per_partition(sink: FeatureSink) -> None:
    shares = [
        ItemShare(item_key=-5, partition=p, activity=an_activity(p + 1)) for p in (0, 3)
    ]
    sink.write([], shares)
    assert sink.read_item_shares(0, [-5, 6]) == {-5: shares[0]}
    assert sink.read_item_shares(3, [-5]) == {-5: shares[1]}
    assert sink.read_item_shares(1, [-5]) == {}


def test_a_partition_that_readers_would_miss_is_refused(sink: FeatureSink) -> None:
    share = ItemShare(item_key=1, partition=4, activity=an_activity())
    with pytest.raises(ValueError, match=r"features\.partitions is 4"):
        sink.write([], [share])


def test_more_rows_than_a_chunk_all_arrive_in_order(sink: FeatureSink) -> None:
    users = [a_user(f"many{i}") for i in range(450)]
    sink.write(users, [])
    assert list(sink.read_users([u.user_id for u in users]).values()) == users


def test_an_older_profile_never_replaces_a_newer_one(
    sink: FeatureSink, store_config: FeatureConfig
) -> None:
    from features import rows
    from features.store import OnlineViews

    newer = ItemProfile(
        item_key=-9,
        item_id="9",
        attributes={"title": "Ålien", "genre": ("Horror", "Sci-Fi")},
        updated_at_ms=AT_MS,
    )
    older = replace(newer, attributes={}, updated_at_ms=AT_MS - 1)
    sink.write_profiles([newer])
    sink.write_profiles([older])
    [stored] = OnlineViews(store_config).read(rows.PROFILE_VIEW, [rows.item_entity(-9)])
    assert stored is not None
    assert rows.unpack_profile(-9, stored) == newer


def test_no_value_and_zero_differ(sink: FeatureSink) -> None:
    sink.write([a_user("zero")], [])
    values = [e.value for e in sink.read_users(["zero"])["zero"].sequence.elements]
    assert values == [None, 4.5, 0.0]
    assert not any(value is not None and math.isnan(value) for value in values)


def test_a_registry_without_our_views_says_what_to_run(store_config: FeatureConfig) -> None:
    from features.store import FeatureStoreSink

    empty = replace(store_config, registry=store_config.registry + ".other")
    with pytest.raises(ValueError, match="srp4ctr features apply"):
        FeatureStoreSink(empty)


def test_applying_twice_is_harmless(store_config: FeatureConfig) -> None:
    from features import store

    assert store.apply(store_config) == [
        "item_activity",
        "item_profile",
        "user_activity",
        "user_behavior_sequence",
    ]


def test_a_store_that_is_down_raises(store_config: FeatureConfig) -> None:
    from features import rows
    from features.store import OnlineViews

    with ports.reserved_ports(1) as (closed,):
        down = replace(store_config, redis=f"{ports.HOST}:{closed}")
    views = OnlineViews(down, timeout_s=0.25)
    with pytest.raises(ConnectionError):
        views.read(rows.SEQUENCE_VIEW, [rows.user_entity("u1")])
