"""The real stack's store: its command, its users and their permissions."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import redis

from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.item_map import ItemMemory
from srp4ctr.streams.events.schema import GOLDEN_USERS, item_key
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState
from tests.compose import real_stack

MISSING = [tool for tool in ("redis-server", "openssl") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}"),
]
As = Callable[[str], FeatureConfig]


@pytest.fixture(scope="module")
def address(stack_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_stack.redis(tmp_path_factory.mktemp("store"), stack_files) as found:
        yield found


@pytest.fixture(scope="module")
def known_as(
    address: str, stack_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> As:
    """Return what makes a user's settings; the views are registered by then."""
    from srp4ctr.features.online import feast_store

    folder = tmp_path_factory.mktemp("registry")

    def settings_of(user: str) -> FeatureConfig:
        return real_stack.store_of(address, user, stack_files, folder)

    feast_store.apply(settings_of("stream"))
    return settings_of


def test_the_worker_writes_what_triton_and_the_promoter_read_and_cannot_change(
    known_as: As,
) -> None:
    from srp4ctr.features.online import store

    profile = ItemProfile(
        item_key=item_key("i1"), item_id="i1", attributes={"a": "b"}, updated_at_ms=1
    )
    store.FeatureStoreSink(known_as("stream")).write_profiles([profile])
    newer = replace(profile, updated_at_ms=2)
    for reader in ("triton", "promoter"):
        views = store.OnlineViews(known_as(reader))
        assert views.read_profiles([profile.item_key]) == {profile.item_key: profile}
        with pytest.raises(MistakeError, match="no permissions"):
            store.FeatureStoreSink(known_as(reader)).write_profiles([newer])


def test_the_promoter_may_store_and_remove_golden_users_only(known_as: As) -> None:
    from srp4ctr.features.online.row_codec import USERS
    from srp4ctr.features.online.store import OnlineViews

    views, user = OnlineViews(known_as("promoter")), UserState(version_us=7)
    golden = f"{GOLDEN_USERS}1"
    views.write_for(60, USERS, {golden: user})
    assert views.read_users([golden, "u1"]) == {golden: user}
    views.remove(USERS, [golden])
    assert views.read_users([golden]) == {}
    for forbidden in (
        partial(views.write_for, 60, USERS, {"u1": user}),
        partial(views.remove, USERS, ["u1"]),
    ):
        with pytest.raises(MistakeError, match="no permissions"):
            forbidden()


def test_triton_may_read_items_and_their_changes_for_its_table(known_as: As) -> None:
    from srp4ctr.features.online.item_refresher import Refresher
    from srp4ctr.features.online.store import FeatureStoreSink, OnlineViews

    memory, sink = ItemMemory(), FeatureStoreSink(known_as("stream"))
    refresher = Refresher(OnlineViews(known_as("triton")), memory)
    counted = Activity(counted_at_ms=5, first_seen_ms=5, version_us=5)
    sink.write(Rows(shares={(71, 0): counted}))
    refresher.fill()
    sink.write(Rows(shares={(72, 0): counted}))
    refresher.turn(0.0)
    items = memory.current()
    assert items is not None
    assert items.find(np.array([71, 72])).all()


@pytest.mark.parametrize("command", ["FLUSHALL", "CONFIG GET *", "ACL LIST", "KEYS *"])
def test_not_even_the_worker_may_do_what_would_end_the_store_or_show_its_users(
    known_as: As, stack_files: Path, command: str
) -> None:
    with (
        _client(known_as("stream"), stack_files, "stream") as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*command.split())


def test_the_health_user_may_only_ping(known_as: As, stack_files: Path) -> None:
    with _client(known_as("stream"), stack_files, "health") as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("x")


def _client(config: FeatureConfig, files: Path, user: str) -> redis.Redis:
    """Return a plain client of ``user``, without a password where there is none."""
    host, _, port = config.redis.partition(":")
    password = files / f"redis_{user}"
    return redis.Redis(
        host=host,
        port=int(port),
        ssl=True,
        ssl_ca_certs=config.redis_ca_file,
        username=user,
        password=password.read_text() if password.is_file() else "none",
        lib_name=None,
        lib_version=None,
    )
