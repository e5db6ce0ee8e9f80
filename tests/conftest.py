"""Tests run in two processes at a time (``make test``): which of them stay together."""

from collections.abc import Iterator
from pathlib import Path

import pytest

# What is started once for all of these is started once.
TOGETHER = ("end_to_end", "monitoring/page")
# Those that wait longest begin first, so that no process is left with one at the end.
LONGEST = (
    "end_to_end",
    "faults",
    "streams/test_re",
    "triton_repo",
    "training/test_crashes",
)
ROOT = Path(__file__).parent


@pytest.hookimpl(wrapper=True)  # around xdist's own, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Give each test the group that one process runs: its file, or its folder."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_turn)
    yield


def _group(item: pytest.Item) -> str:
    file = item.path.relative_to(ROOT).as_posix()
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def _turn(item: pytest.Item) -> int:
    file = item.path.relative_to(ROOT).as_posix()
    turns = (turn for turn, start in enumerate(LONGEST) if file.startswith(start))
    return next(turns, len(LONGEST))
