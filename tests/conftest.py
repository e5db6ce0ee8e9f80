"""Tests run in two processes at a time (``make test``): which of them stay together.

By xdist's own hook, for its groups (``--dist loadgroup``) are lost on pytest 9.2.
"""

import logging
import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from srp4ctr.features.online import feast_import

# What is started once for all of these is started once.
TOGETHER = ("tests/end_to_end", "tests/monitoring/page")
# Those that wait longest begin first, so that no process is left with one at the end.
LONGEST = (
    "tests/containers",
    "tests/end_to_end",
    "tests/faults",
    "tests/streams/test_re",
    "tests/triton_repo",
    "tests/training/test_crashes",
)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """One process runs all tests of a file, or of a folder of ``TOGETHER``."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_configure() -> None:
    """Take back the terminal's size that xdist sets; import Feast without torch."""
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
