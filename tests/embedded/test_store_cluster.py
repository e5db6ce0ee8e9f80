"""The embedded Redis Cluster: the effect of a lost node, and what a restart keeps."""

from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.events.schema import action_code
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SequenceElement, sequence_of
from srp4ctr.streams.state.user_state import UserState

pytestmark = pytest.mark.redis
USERS = [f"u{number}" for number in range(30)]


def started(folder: Path) -> tuple[FeatureConfig, list[processes.Running]]:
    with ports.reserved_ports(2 * broker.NODES) as free:
        nodes = broker.start_cluster(folder, free, tied=True)
    config = FeatureConfig(
        redis=f"{ports.HOST}:{free[0]}",
        redis_cluster=True,
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
    )
    return config, nodes


def read_one_by_one(config: FeatureConfig) -> int:
    """Return how many users can be read: a request is for one of them."""
    from srp4ctr.features.online.store import OnlineViews

    views, found = OnlineViews(config, timeout_s=1.0), 0
    for user_id in USERS:
        try:
            found += len(views.read_users([user_id]))
        except ConnectionError:
            continue
    return found


def test_a_lost_node_takes_its_rows_alone_and_a_restart_on_other_ports_has_all(
    tmp_path: Path,
) -> None:
    from srp4ctr.features.online import feast_store, store

    config, nodes = started(tmp_path)
    try:
        feast_store.apply(config)
        element = SequenceElement(occurred_at=1, item_key=1, action=action_code("view"))
        row = UserState(sequence=sequence_of([element]), version_us=7)
        store.FeatureStoreSink(config).write(Rows(users=dict.fromkeys(USERS, row)))
        assert read_one_by_one(config) == len(USERS)
        processes.stop(nodes[1], tmp_path)
        assert 10 <= read_one_by_one(config) < len(USERS)
        for node in nodes:
            processes.stop(node, tmp_path)
        config, nodes = started(tmp_path)
        assert read_one_by_one(config) == len(USERS)
    finally:
        for node in nodes:
            processes.stop(node, tmp_path)
