import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import LOCK_FILE, RefreshIsRunningError

HOLD = """
import sys, time
from pathlib import Path
from srp4ctr.training.refresh import reports
with reports.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "held\n"
    return started


def test_a_second_refresh_is_refused_with_the_first_one_s_process(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    said = f"process {holder.pid} on .* since 2"
    with holder:
        with pytest.raises(RefreshIsRunningError, match=said), reports.held(tmp_path):
            pass
        os.kill(holder.pid, signal.SIGKILL)


def test_the_lock_of_a_killed_refresh_is_taken_over(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    with holder:
        os.kill(holder.pid, signal.SIGKILL)
    with reports.held(tmp_path) as note:
        assert f"took over from a refresh that died: process {holder.pid}" in note
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_a_refresh_that_failed_in_order_leaves_nothing_to_take_over(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="no labels"), reports.held(tmp_path):
        raise ValueError("no labels")
    with reports.held(tmp_path) as note:
        assert note == ""
