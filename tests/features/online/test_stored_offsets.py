"""A store that lost what it had acknowledged is noticed before a row is written into it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.stored_offsets import KEY, RANGES, cluster_keys
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import LostWritesError
from srp4ctr.streams.state.user_state import UserState

pytestmark = pytest.mark.redis
ROWS = Rows(users={"u1": UserState(version_us=1)})


@pytest.fixture(params=["store_config", "cluster_config"])
def config(request: pytest.FixtureRequest) -> Iterator[FeatureConfig]:
    found: FeatureConfig = request.getfixturevalue(request.param)
    yield found
    delete(found, [KEY, *cluster_keys()])


def delete(config: FeatureConfig, keys: list[bytes]) -> None:
    from srp4ctr.features.online.store import OnlineViews

    OnlineViews(config).call(lambda client: [client.delete(key) for key in keys])


def forget_last_write(config: FeatureConfig, keys: int = RANGES) -> None:
    """Let ``keys`` of the store's offsets be what they were before the last write."""
    from srp4ctr.features.online.store import OnlineViews

    def older(client: redis.Redis) -> None:
        for key in cluster_keys()[:keys] if config.redis_cluster else [KEY]:
            client.hset(key.decode(), "1", "5 of-before")

    OnlineViews(config).call(older)


def test_a_worker_begins_where_the_rows_of_the_one_before_end(
    config: FeatureConfig,
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(config)
    assert sink.begin(1) is None
    sink.write(ROWS, {1: 7})
    sink.write(Rows(), {1: 9, 2: 3})
    assert FeatureStoreSink(config).stored_offsets() == {1: 9, 2: 3}
    other = FeatureStoreSink(config)
    assert other.begin(1) == 9
    other.write(ROWS, {1: 11})
    assert sink.begin(1) == 11


@pytest.mark.parametrize("keys", [RANGES, 1])
def test_no_row_is_written_into_a_store_that_lost_its_last_writes(
    config: FeatureConfig, keys: int
) -> None:
    """Of a cluster one node may have failed over: any of the keys shows it."""
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(config)
    sink.begin(1)
    sink.write(Rows(), {1: 9})
    forget_last_write(config, keys)
    with pytest.raises(LostWritesError, match="partition 1"):
        sink.write(Rows(users={"lost": UserState(version_us=1)}), {1: 12})
    assert not sink.read(["lost"], []).users
    assert sink.begin(1) == 5
    sink.write(ROWS, {1: 12})
    assert sink.begin(1) == 12


def test_an_emptied_store_knows_no_offset(config: FeatureConfig) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(config)
    sink.begin(1)
    sink.write(Rows(), {1: 9})
    delete(config, [KEY, cluster_keys()[-1]])  # of a cluster, one node's
    with pytest.raises(LostWritesError):
        sink.write(ROWS, {1: 12})
    assert sink.begin(1) is None


def test_a_cluster_s_keys_are_in_all_ranges_of_its_slots() -> None:
    slots = sorted(map(key_slot, cluster_keys()))
    assert [slot * RANGES // 16_384 for slot in slots] == list(range(RANGES))


def is_in_step(host: str, port: int) -> bool:
    with redis.Redis(host, port) as client:
        return bool(client.info("replication")["master_link_status"] == "up")


def test_each_node_of_a_cluster_waits_for_replicas_of_its_own(
    cluster_config: FeatureConfig,
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    config = replace(cluster_config, redis_wait_replicas=1, redis_wait_ms=50)
    with pytest.raises(OutageError, match="0 of 1 replicas"):
        FeatureStoreSink(config).write(ROWS, {2: 1})


def test_rows_wait_for_replicas_and_too_few_are_an_outage(
    store_config: FeatureConfig, tmp_path: Path
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    host, _, port = store_config.redis.rpartition(":")
    config = replace(store_config, redis_wait_replicas=1, redis_wait_ms=200)
    sink = FeatureStoreSink(config)
    sink.begin(3)
    with pytest.raises(OutageError, match=r"0 of 1 replicas .* features\.redis_wait_rep"):
        sink.write(ROWS, {3: 1})
    with ports.reserved_ports(1) as (free,):
        options = ("--replicaof", host, port)
        replica = broker.start_store(tmp_path, free, *options, tied=True)
        try:
            processes.wait_ready(replica, lambda: is_in_step(host, free), timeout_s=60.0)
            slow = FeatureStoreSink(replace(config, redis_wait_ms=4000))
            slow.begin(3)
            for offset in range(2, 5):
                slow.write(ROWS, {3: offset})
                with redis.Redis(host, free) as client:
                    mark = client.hget(KEY.decode(), "3")
                assert mark.split()[0] == str(offset).encode()
        finally:
            processes.stop(replica, tmp_path)
