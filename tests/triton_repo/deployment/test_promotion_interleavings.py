"""Rollouts that meet, crash, fail or freeze at any action: servers never stay split.

By default one point in five is tried; SRP4CTR_WALK=1 tries all.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from srp4ctr import processes
from srp4ctr.errors import Srp4ctrError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import (
    live_repository,
    one_server,
    promotion,
    reconcile,
    rollout_lease,
)
from tests.triton_repo import fake_servers
from tests.triton_repo.bundles import STORE_GATE
from tests.triton_repo.fake_servers import FakeServers

STRIDE = 1 if os.environ.get("SRP4CTR_WALK") else 5
WAIT_S = 20.0
LEASE = "-lease"


class KilledError(BaseException):
    """The process has ended by SIGKILL: none of its handlers has any effect."""


@dataclass
class Faults:
    """Lets the thread "first" crash, fail or freeze at its action number ``point``."""

    kind: str = ""
    point: int = -1
    actions: list[str] = field(default_factory=list)
    """Those of the thread "first"."""
    is_dead: bool = False
    frozen: threading.Event = field(default_factory=threading.Event)
    thaws: threading.Event = field(default_factory=threading.Event)

    def act(self, action: str) -> None:
        name = threading.current_thread().name
        if not name.startswith("first"):
            return
        if self.is_dead:
            raise KilledError
        if name.endswith(LEASE):  # stops with the other thread, and has no number
            if self.frozen.is_set():
                self.thaws.wait(WAIT_S)
            return
        self.actions.append(action)
        if len(self.actions) - 1 == self.point:
            self._strike(action)

    def _strike(self, action: str) -> None:
        if self.kind == "kill":
            self.is_dead = True
            raise KilledError
        if self.kind == "error":
            is_call = action.startswith(("load", "unload", "list"))
            raise (InferenceServerException if is_call else OSError)(f"no {action}")
        if self.kind == "freeze":
            self.frozen.set()
            assert self.thaws.wait(WAIT_S)

    def before(self, action: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, which is an action of its own."""

        def acting(*args: Any, **options: Any) -> Any:
            self.act(f"{action} {getattr(args[0], 'name', '')}")
            return call(*args, **options)

        return acting


def lease_thread(target: Callable[..., None], **options: Any) -> threading.Thread:
    """Return a thread that is of the same process as this one."""

    def run(*args: Any) -> None:
        with suppress(KilledError):
            target(*args)

    name = threading.current_thread().name + LEASE
    return threading.Thread(target=run, name=name, **options)


class World:
    """Two servers of v1 and v2, and a process "first" that may be struck."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count, self._folder, self._patch = 0, folder, monkeypatch
        self._prepared: dict[tuple[bool, bool], FakeServers] = {}
        self.faults = Faults()
        patch = monkeypatch.setattr
        patch(os, "fsync", lambda _: None)  # the power stays on
        patch(rollout_lease, "LEASE_S", 0.06)
        patch(rollout_lease, "_POLL_S", 0.01)
        names = {"Thread": lease_thread, "Event": threading.Event}
        patch(rollout_lease, "threading", SimpleNamespace(**names))
        patch(processes, "identity", lambda: f"{threading.current_thread().name} pid 1 a b")
        patch(processes, "has_ended", lambda who: "first" in who and self.faults.is_dead)
        # Bound late, as each case has its own faults.
        for module, name in (
            (live_repository, "replace_text"),
            (rollout_lease, "write_json"),
            (live_repository, "acquire"),
            (shutil, "rmtree"),
        ):
            patch(module, name, self._late(name, getattr(module, name)))

    def _late(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: self.faults.before(name, call)(*args, **options)

    def start(self, *, serves: bool, canary: bool, kind: str = "", point: int = -1) -> None:
        """Make new servers; without ``serves`` nothing was promoted yet."""
        self._count += 1
        self.faults = Faults(kind, point)
        folder = self._folder / str(self._count)
        key = (serves, canary)
        if key not in self._prepared:
            self._prepared[key] = self._prepare(self._folder / f"{serves}{canary}", *key)
        shutil.copytree(self._folder / f"{serves}{canary}", folder)
        self.servers = FakeServers(folder, 2, lambda action: self.faults.act(action))
        for name, server in self._prepared[key].by_address.items():
            self.servers.by_address[name].loaded = dict(server.loaded)
        fake_servers.install(self._patch, self.servers)
        lock_wait_s = 0.12 if kind == "freeze" else WAIT_S
        self._patch.setattr(live_repository, "LOCK_WAIT_S", lock_wait_s)

    def _prepare(self, folder: Path, serves: bool, canary: bool) -> FakeServers:
        servers = FakeServers(folder, 2, lambda _: None)
        fake_servers.install(self._patch, servers)
        for version in ("v1", "v2") if serves else ():
            assert not promote(servers, version)
        if canary:
            assert not promote(servers, "v9", canary=True)
        folder.mkdir(exist_ok=True)
        return servers

    def is_split(self) -> bool:
        """Return whether servers answer differently, by what they have loaded."""
        answers = set()
        for server in self.servers.by_address.values():
            versions = server.versions()
            canary = versions.pop(model_names.RANK_CLICKS_CANARY, None)
            if len(set(versions.values())) > 1:
                return True
            answers.add((frozenset(versions.values()), canary))
        return len(answers) > 1

    def reconcile(self) -> reconcile.Reconciliation:
        return reconcile.reconcile(
            self.servers.triton, FeatureConfig(), self.servers.bundle_folder
        )

    def run(self, act: Callable[[], object]) -> str:
        """Return "" if ``act`` succeeds, which it must not where servers are split."""
        try:
            refusal = act()
        except (Srp4ctrError, OSError, KilledError) as error:
            return f"{type(error).__name__}: {error}"
        if isinstance(refusal, str) and refusal:
            return refusal
        assert not self.is_split(), (act, self.faults)
        return ""

    @contextmanager
    def first(self, act: Callable[[], object]) -> Iterator[Future[str]]:
        """Run ``act`` in the process that is struck."""
        with ThreadPoolExecutor(1, "first") as pool:
            try:
                yield pool.submit(self.run, act)
            finally:
                self.faults.thaws.set()

    def check_repaired(self) -> None:
        """Reconcile, twice; nothing is split then, and no call was broken."""
        self._patch.setattr(live_repository, "LOCK_WAIT_S", WAIT_S)
        self.reconcile()
        assert not self.is_split(), self.faults
        assert self.reconcile().action == "nothing", self.faults
        states = reconcile.read_states(self.servers.triton)
        for state in states:
            server = self.servers.by_address[state.server]
            assert state.serving.serving == server.serves(), self.faults
            assert not server.broken_calls, self.faults


def promote(servers: FakeServers, version: str, *, canary: bool = False) -> str:
    source = servers.bundle(version)
    found = promotion.promote(
        source, servers.triton, FeatureConfig(), STORE_GATE, canary=canary
    )
    return found.refusal


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(tmp_path, monkeypatch)


# What the struck process does → whether anything serves before, and whether a canary does.
FIRST = {
    "promote": (True, False),
    "promote the first bundle": (False, False),
    "promote a canary": (True, False),
    "promote the canary": (True, True),
    "roll back": (True, False),
    "end the canary": (True, True),
}
SECOND = ("roll back", "promote another")


def action_of(name: str, servers: FakeServers) -> Callable[[], object]:
    return {
        "promote": lambda: promote(servers, "v3"),
        "promote the first bundle": lambda: promote(servers, "v3"),
        "promote a canary": lambda: promote(servers, "v3", canary=True),
        "promote the canary": lambda: promote(servers, "v9"),
        "promote another": lambda: promote(servers, "v4"),
        "roll back": lambda: promotion.rollback(servers.triton),
        "end the canary": lambda: promotion.end_canary(servers.triton),
    }[name]


def points(world: World, first: str) -> range:
    """Return the actions of ``first``, which is not struck here, to be walked."""
    serves, canary = FIRST[first]
    world.start(serves=serves, canary=canary)
    with world.first(action_of(first, world.servers)) as result:
        assert result.result() == ""
    found = len(world.faults.actions)
    assert found > 10
    return range(sum(map(ord, first)) % STRIDE, found, STRIDE)


def chosen(seconds: Sequence[str], point: int) -> Sequence[str]:
    """Return what follows at ``point``: one of ``seconds``, or all in a whole walk."""
    place = point // STRIDE % len(seconds)
    return seconds if STRIDE == 1 else seconds[place : place + 1]


@pytest.mark.parametrize("kind", ["kill", "error"])
@pytest.mark.parametrize("first", FIRST)
def test_a_rollout_that_is_struck_anywhere_is_repaired(
    world: World, first: str, kind: str
) -> None:
    serves, canary = FIRST[first]
    for point in points(world, first):
        for second in chosen(("", *SECOND), point):
            world.start(serves=serves, canary=canary, kind=kind, point=point)
            with world.first(action_of(first, world.servers)) as result:
                ended = result.result()
            assert ended or kind == "error"
            if second:  # it settles the first one automatically
                failure = world.run(action_of(second, world.servers))
                assert not failure or not serves or "MistakeError" in failure, failure
                assert not world.is_split(), world.faults
            world.check_repaired()


@pytest.mark.parametrize("first", FIRST)
def test_a_rollout_that_is_paused_anywhere_writes_nothing_afterwards(
    world: World, first: str
) -> None:
    serves, canary = FIRST[first]
    for point in points(world, first):
        for second in chosen(SECOND, point):
            world.start(serves=serves, canary=canary, kind="freeze", point=point)
            with world.first(action_of(first, world.servers)) as result:
                assert world.faults.frozen.wait(WAIT_S) or result.done()
                world.run(action_of(second, world.servers))
                world.faults.thaws.set()
                assert isinstance(result.result(), str)  # no success of a split
            world.check_repaired()


def test_a_rollback_during_a_rollout_leaves_no_server_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reached, goes_on = threading.Event(), threading.Event()

    def act(action: str) -> None:
        is_second = action == "load click_ranker_v3" and rendered_on(servers, "v3") == 2
        if is_second and not reached.is_set():
            reached.set()
            goes_on.wait(10.0)

    servers = FakeServers(tmp_path, 2, act)
    fake_servers.install(monkeypatch, servers)
    assert not promote(servers, "v1")
    assert not promote(servers, "v2")
    with ThreadPoolExecutor(2) as pool:
        rolling_out = pool.submit(promote, servers, "v3")
        assert reached.wait(10.0)  # the first server serves v3, the second one does not
        rolling_back = pool.submit(promotion.rollback, servers.triton)
        threading.Timer(0.5, goes_on.set).start()
        assert rolling_out.result() == ""
        assert rolling_back.result().serving == "v2"
    assert servers.serving() == {"v2"}


def rendered_on(servers: FakeServers, version: str) -> int:
    repositories = (each.repository for each in servers.by_address.values())
    return sum(
        (repository / f"click_ranker_{version}").is_dir() for repository in repositories
    )


def test_a_split_without_a_record_follows_the_first_server(world: World) -> None:
    world.start(serves=True, canary=False)
    second = world.servers.triton.servers()[1]
    one_server.switch_back(second)  # by hand, on one server only
    assert world.is_split()
    found = world.reconcile()
    assert (found.action, found.command) == ("repaired", "")
    assert world.servers.serving() == {"v2"}
    assert world.reconcile().action == "nothing"
