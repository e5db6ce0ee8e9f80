"""Tests run in two processes at a time (``make test``): which of them stay together.

By xdist's own hook, for its groups (``--dist loadgroup``) are lost on pytest 9.2. And where
the raw logs are that they write: in a folder, and in a bucket of an S3 server.
"""

import logging
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from srp4ctr import processes
from srp4ctr.embedded.ports import reserved_ports
from srp4ctr.errors import Srp4ctrError
from srp4ctr.features.online import feast_import
from srp4ctr.testing.object_store import BUCKET, ObjectStore, find_server

# What is started once for all of these is started once.
TOGETHER = ("tests/end_to_end", "tests/monitoring/web")
# Those that wait longest begin first, so that no process is left with one at the end.
LONGEST = (
    "tests/containers",
    "tests/end_to_end",
    "tests/faults",
    "tests/streams/worker/test_re",
    "tests/triton_repo",
    "tests/training/refresh",
)
# Before torch is imported. Its threads wait for each other by spinning: on busy cores two
# of them take twice as long as one, and twice the CPU.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """One process runs all tests of a file, or of a folder of ``TOGETHER``."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_configure() -> None:
    """Take back the terminal's size that xdist sets; import Feast without torch.

    And end on Ctrl-C again where a shell started the suite in the background (``&``): that
    ignores it, and so would every command that a test interrupts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)
    feast_import.lightly()


def pytest_runtest_setup() -> None:
    """Let every logger speak: a run of import-linter silences all there are."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Return what hands the tests out."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that wait longest first."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    turns = (turn for turn, start in enumerate(LONGEST) if item.nodeid.startswith(start))
    return next(turns, len(LONGEST))


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Yield an S3 server; skip where there is none, and no Go to build one."""
    try:
        find_server()
    except Srp4ctrError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("objects")
    with reserved_ports(1) as (port,):
        store = ObjectStore(folder=folder, port=port)
        running = store.start()
        yield store
        processes.stop(running, folder)


@pytest.fixture
def bucket_log(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a log that is not there yet; the environment has its keys."""
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/events"


@pytest.fixture(params=["folder", "bucket"])
def raw_log(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Return where a log may be written, of either kind."""
    if request.param == "folder":
        return tmp_path / "events"
    address: str = request.getfixturevalue("bucket_log")
    return address


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
