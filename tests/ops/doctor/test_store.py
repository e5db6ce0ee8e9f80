"""The doctor's checks of stores that are closed and open."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded.ports import reserved_ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops.doctor import store
from srp4ctr.ops.doctor.check_result import answers, own_addresses
from srp4ctr.settings import Settings
from tests.compose import real_stack

MISSING = [tool for tool in ("redis-server", "openssl") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}"),
]


@pytest.fixture(scope="module")
def closed(
    stack_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FeatureConfig]:
    folder = tmp_path_factory.mktemp("closed")
    with real_stack.redis(folder, stack_files) as address:
        yield real_stack.store_of(address, "promoter", stack_files, folder)


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureConfig]:
    """Yield a store without authentication, on this machine's network address."""
    addresses, folder = own_addresses(), tmp_path_factory.mktemp("exposed")
    if not addresses:
        pytest.skip("this machine is in no network")
    with reserved_ports(1) as (port,):
        command = ["redis-server", "--bind", addresses[0], "--port", str(port)]
        command += ["--protected-mode", "no", "--save", "", "--dir", str(folder)]
        program = processes.Program(name="redis", command=tuple(command))
        running = processes.start(program, folder, tied=True)
        processes.wait_ready(running, lambda: answers(addresses[0], port))
    yield FeatureConfig(redis=f"{addresses[0]}:{port},db=2")
    processes.stop(running, folder)


def test_the_real_stack_s_is_closed(closed: FeatureConfig) -> None:
    settings = Settings(features=closed)
    (access,) = store.anonymous(settings)
    (user,) = store.our_user(settings)
    assert (access.state, user.state) == ("ok", "ok")
    assert user.found == "promoter may not change the store's settings"


def test_a_store_that_lets_all_in_is_open(exposed: FeatureConfig) -> None:
    (access,) = store.anonymous(Settings(features=exposed))
    assert access.state == "open"
    assert access.found.startswith("every client of")
    assert list(store.our_user(Settings(features=exposed))) == []


def test_a_default_or_unlimited_user_is_open(
    exposed: FeatureConfig,
) -> None:
    default = replace(exposed, redis_password="s3cret")
    plain, everything = store.our_user(Settings(features=default))
    assert (plain.state, everything.state) == ("open", "open")
    assert "default user" in everything.found
    named = replace(default, redis_username="default", redis_password="")
    named = replace(named, redis_password_file="")
    _, settings = store.our_user(Settings(features=named))
    assert settings.found == "default may change the store's settings"


def test_views_that_are_not_registered_are_wrong(closed: FeatureConfig) -> None:
    (registry,) = store.views(Settings(features=closed))
    assert (registry.check, registry.state) == ("registry", "wrong")
    assert registry.do == "srp4ctr features apply"
