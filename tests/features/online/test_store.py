"""Rows through Feast, on one store and on a Redis Cluster of three nodes."""

import dataclasses
from pathlib import Path

import msgspec
import pandas as pd
import pytest
import redis
from msgspec.structs import asdict

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import row_codec
from srp4ctr.features.online.store import OnlineViews
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity, count
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SHOWN, SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import FeatureSink, ItemProfile
from srp4ctr.streams.state.user_state import UserState
from tests.proxies import proxy

pytestmark = pytest.mark.redis
AT_MS = 1_700_000_000_123


@pytest.fixture(scope="module", params=["store_config", "cluster_config"])
def config(request: pytest.FixtureRequest) -> FeatureConfig:
    found: FeatureConfig = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def sink(config: FeatureConfig) -> FeatureSink:
    from srp4ctr.features.online.store import FeatureStoreSink

    return FeatureStoreSink(config)


def a_user(*values: float | None, version_us: int = AT_MS * 1000) -> UserState:
    elements = [
        SequenceElement(occurred_at=AT_MS + i, item_key=-(2**62) + i, action=2, value=value)
        for i, value in enumerate(values)
    ]
    shown = SequenceElement(occurred_at=AT_MS, item_key=-(2**62), action=SHOWN)
    return UserState(
        **asdict(an_activity()) | {"version_us": version_us},
        sequence=sequence_of(elements),
        exposures=sequence_of([shown]),
    )


def an_activity(offset: int = 7) -> Activity:
    once = count(Activity(), at_ms=AT_MS, is_click=False, offset=offset - 1)
    return count(once, at_ms=AT_MS + 1000, is_click=True, offset=offset)


def users(*user_ids: str) -> Rows:
    return Rows(users={user_id: a_user(None, 4.5, 0.0) for user_id in user_ids})


def test_a_written_user_is_read_back_the_same(sink: FeatureSink) -> None:
    written = users("ünïcode 7")
    sink.write(written)
    assert sink.read(["ünïcode 7"], []) == written


def test_feast_reads_what_is_written(sink: FeatureSink, config: FeatureConfig) -> None:
    from srp4ctr.features.online import feast_store, row_codec

    sink.write(users("for Feast"))
    profile = ItemProfile(
        item_key=item_key("8"), item_id="8", attributes={"a": "b"}, updated_at_ms=AT_MS
    )
    sink.write_profiles([profile])
    store = feast_store.open_store(config)
    wanted = [{"user_id": "for Feast"}, {"user_id": "never seen"}]
    view = row_codec.USERS
    found = store.get_online_features([f"{view.name}:packed"], wanted).to_dict()
    (stored,) = view.pack(users("for Feast").users["for Feast"])
    assert found["packed"] == [stored, None]
    texts = ["item_profile:item_id", "item_profile:attributes"]
    found = store.get_online_features(texts, [{"item_key": profile.item_key}]).to_dict()
    assert (found["item_id"], found["attributes"]) == (["8"], ['{"a": "b"}'])


def test_what_feast_writes_is_read(sink: FeatureSink, config: FeatureConfig) -> None:
    from srp4ctr.features.online import feast_store, row_codec

    row = a_user(1.0)
    (packed,) = row_codec.USERS.pack(row)
    frame = pd.DataFrame(
        {
            "user_id": ["from Feast"],
            "packed": [packed],
            "created_at": [pd.Timestamp(AT_MS, unit="ms", tz="UTC")],
        }
    )
    store = feast_store.open_store(config)
    store.write_to_online_store("user_behavior_sequence", frame)
    assert sink.read(["from Feast"], []).users == {"from Feast": row}


def test_an_unknown_user_is_absent_although_redis_answers_nulls(sink: FeatureSink) -> None:
    sink.write(users("known"))
    read = sink.read(["known", "never seen"], [(42, 0)])
    assert list(read.users) == ["known"]
    assert read.shares == {}


def test_a_forgotten_user_is_read_back_as_such(sink: FeatureSink) -> None:
    forgotten = UserState(forgotten_at_ms=AT_MS, forgotten_offset=12, version_us=1)
    sink.write(Rows(users={"forgotten": forgotten}))
    assert sink.read(["forgotten"], []).users["forgotten"] == forgotten


def with_attributes(text: str, at_ms: int, version_us: int = AT_MS * 1000) -> UserState:
    row = a_user(1.0, version_us=version_us)
    return msgspec.structs.replace(row, attributes=text, profile_at_ms=at_ms)


def test_feast_reads_a_users_attributes_until_they_are_erased(
    sink: FeatureSink, config: FeatureConfig
) -> None:
    from srp4ctr.features.online import feast_store

    wanted = [{"user_id": each} for each in ("described", "plain", "nobody")]
    described = with_attributes('{"age":"34","town":"Köln"}', AT_MS)
    sink.write(Rows(users={"plain": a_user(1.0), "described": described}))
    assert sink.read(["described", "plain"], []).users == {
        "described": described,
        "plain": a_user(1.0),
    }
    store = feast_store.open_store(config)
    found = store.get_online_features(["user_profile:attributes"], wanted).to_dict()
    assert found["attributes"] == [described.attributes, None, None]
    forgotten = UserState(forgotten_at_ms=AT_MS, version_us=AT_MS * 1000 + 1)
    sink.write(Rows(users={"described": forgotten}))
    assert sink.read(["described"], []).users == {"described": forgotten}
    found = store.get_online_features(["user_profile:attributes"], wanted).to_dict()
    assert found["attributes"] == [None] * 3


def test_a_reader_of_histories_reads_a_row_without_its_attributes(
    sink: FeatureSink, config: FeatureConfig
) -> None:
    from srp4ctr.features.online import row_codec
    from srp4ctr.features.online.store import OnlineViews

    described = with_attributes('{"age":"34"}', AT_MS)
    sink.write(Rows(users={"with attributes": described}))
    views = OnlineViews(config, users=row_codec.USER_HISTORIES)
    assert views.read_users(["with attributes"]) == {"with attributes": a_user(1.0)}


def test_an_older_row_changes_no_attributes(sink: FeatureSink) -> None:
    newer = with_attributes('{"age":"35"}', AT_MS + 1, AT_MS * 1000 + 1000)
    older = with_attributes('{"age":"34"}', AT_MS)
    for row in (older, newer, older, a_user(2.0)):
        sink.write(Rows(users={"growing": row}))
    assert sink.read(["growing"], []).users == {"growing": newer}


def test_versions_keep_their_last_microsecond(sink: FeatureSink) -> None:
    versions = [1_700_000_000_123_000 + i for i in (1, 7, 333, 999)]
    found = {f"v{version}": a_user(1.0, version_us=version) for version in versions}
    sink.write(Rows(users=found))
    read = sink.read(list(found), []).users
    assert [row.version_us for row in read.values()] == versions


@pytest.mark.parametrize("version_us", [1, 999_999, 1_000_000, 1_700_000_000_000_000])
def test_only_a_newer_version_is_written(sink: FeatureSink, version_us: int) -> None:
    """By whom it is compared, no other client can write in between: it is the store."""
    user_id = f"mover {version_us}"
    for later_us, value in ((0, 1.0), (-1, 2.0), (0, 3.0), (1, 4.0), (1_000_000, 5.0)):
        if version_us + later_us:
            row = a_user(value, version_us=version_us + later_us)
            sink.write(Rows(users={user_id: row}))
        is_newer = later_us > 0 or value == 1.0
        (kept,) = sink.read([user_id], []).users[user_id].sequence.elements
        assert (kept.value == value) is is_newer


def test_an_item_has_a_share_per_partition(sink: FeatureSink) -> None:
    shares = {(-5, p): an_activity(p + 1) for p in (0, 3)}
    sink.write(Rows(shares=shares))
    keys = [(-5, 0), (6, 0), (-5, 1), (-5, 3)]
    assert sink.read([], keys) == Rows(shares=shares)


def test_a_partition_that_readers_would_miss_is_refused(sink: FeatureSink) -> None:
    with pytest.raises(ValueError, match=r"kafka\.partitions is 4"):
        sink.write(Rows(shares={(1, 4): an_activity()}))


def test_more_rows_than_a_chunk_all_arrive_in_order(sink: FeatureSink) -> None:
    many = {f"many{i}": a_user(float(i)) for i in range(450)}
    sink.write(Rows(users=many))
    read = sink.read(list(many), []).users
    assert list(read.items()) == list(many.items())


def test_an_older_profile_never_replaces_a_newer_one(
    sink: FeatureSink, config: FeatureConfig
) -> None:
    from srp4ctr.features.online.store import OnlineViews

    newer = ItemProfile(
        item_key=item_key("9"),
        item_id="9",
        attributes={"title": "Ålien", "genre": ("Horror", "Sci-Fi")},
        updated_at_ms=AT_MS,
    )
    older = dataclasses.replace(newer, attributes={}, updated_at_ms=AT_MS - 1)
    sink.write_profiles([newer])
    sink.write_profiles([older])
    assert OnlineViews(config).read_profiles([newer.item_key, 5]) == {newer.item_key: newer}
    corrected = dataclasses.replace(newer, attributes={"title": "Alien"})
    sink.write_profiles([corrected])
    assert OnlineViews(config).read_profiles([newer.item_key]) == {
        newer.item_key: corrected
    }


def test_a_registry_without_our_views_says_what_to_run(config: FeatureConfig) -> None:
    from srp4ctr.features.online.feast_store import check_views

    empty = dataclasses.replace(config, registry=config.registry + ".other")
    with pytest.raises(MistakeError, match="srp4ctr features apply"):
        check_views(empty)


def test_applying_twice_is_harmless(config: FeatureConfig) -> None:
    from srp4ctr.features.online import feast_store

    assert feast_store.apply(config) == [
        "item_activity",
        "item_profile",
        "user_behavior_sequence",
        "user_profile",
    ]


def test_a_store_that_is_down_raises(config: FeatureConfig) -> None:
    from srp4ctr.features.online.store import OnlineViews

    with ports.reserved_ports(1) as (closed,):
        down = dataclasses.replace(config, redis=f"{ports.HOST}:{closed}")
    views = OnlineViews(down, timeout_s=0.25)
    with pytest.raises(OutageError, match="did not answer"):
        views.read_users(["u1"])


def test_a_read_survives_the_end_of_its_connection(store_config: FeatureConfig) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink, OnlineViews

    user = UserState(version_us=7, last_offset=3)
    FeatureStoreSink(store_config).write(Rows(users={"of a kept connection": user}))
    views = OnlineViews(store_config, timeout_s=2.0)
    for _ in range(2):
        assert views.read_users(["of a kept connection"])
        views.call(
            lambda client: client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        )


def test_writes_follow_a_failover_behind_one_address(tmp_path: Path) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    with ports.reserved_ports(2) as (old, new):
        nodes = [
            broker.start_store(tmp_path, port, tied=True, name=f"store-{port}")
            for port in (old, new)
        ]
    primaries = [old]
    with proxy(lambda: primaries[-1]) as address:
        sink = FeatureStoreSink(FeatureConfig(redis=address.removeprefix("http://")))
        sink.write(users("before"))
        with redis.Redis(port=old) as demoted:
            demoted.replicaof(ports.HOST, str(new))
        primaries.append(new)
        sink.write(users("after"))
        assert sink.read(["after"], []) == users("after")
    for node in nodes:
        processes.stop(node, tmp_path)


def test_a_temporary_row_is_read_as_any_other_expires_and_can_be_removed(
    config: FeatureConfig,
) -> None:
    views = OnlineViews(config)
    plain, described = a_user(1.5), with_attributes('{"town":"Ulm"}', AT_MS)
    rows = {"plain for a while": plain, "described for a while": described}
    views.write_for(1000, row_codec.USERS, rows)
    assert views.read_users(rows) == rows
    for name in rows:
        key = row_codec.USERS.key(name)
        left_s = views.call(lambda client, key=key: client.ttl(key))  # type: ignore[misc]
        assert 0 < left_s <= 1000
    views.remove(row_codec.USERS, ["plain for a while"])
    assert views.read_users(rows).keys() == {"described for a while"}
    views.remove(row_codec.USERS, rows)
    assert views.read_users(rows) == {}


def test_a_user_of_a_partition_beyond_the_settings_is_refused(sink: FeatureSink) -> None:
    """The only sign that partitions were added, where no impression or click comes."""
    moved = msgspec.structs.replace(a_user(1.0), partition=4)
    with pytest.raises(MistakeError, match=r"from partition 4, but kafka.partitions is 4"):
        sink.write(Rows(users={"moved": moved}))


def test_a_row_has_the_partition_of_its_offsets(sink: FeatureSink) -> None:
    written = Rows(users={"u3": msgspec.structs.replace(a_user(1.0), partition=3)})
    sink.write(written)
    assert sink.read(["u3"], []) == written
