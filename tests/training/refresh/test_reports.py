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


def test_who_refreshes_now_is_known(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    with holder:
        assert reports.running(tmp_path).startswith(f"process {holder.pid} on ")
        os.kill(holder.pid, signal.SIGKILL)
    assert reports.running(tmp_path) == ""  # its name is still in the file
    assert reports.running(tmp_path / "nowhere") == ""


def test_stopping_the_stack_names_a_refresh_that_still_runs(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    folders = {"TRAINING__BUNDLES_DIR": tmp_path, "EMBEDDED__DATA_DIR": tmp_path / "data"}
    environment = {f"SRP4CTR_{name}": str(folder) for name, folder in folders.items()}
    command = [sys.executable, "-m", "srp4ctr.cli", "stack", "down"]
    with holder:
        result = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        os.kill(holder.pid, signal.SIGKILL)
    assert result.stdout == "stopped: nothing was running\n"
    assert f"A refresh still runs (process {holder.pid} on " in result.stderr
