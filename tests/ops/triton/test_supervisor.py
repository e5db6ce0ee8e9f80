"""The first process of Triton's container ends as the server ends; it hands signals on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.compose.real_stack import ROOT


def supervised(folder: Path, script: str, **variables: str) -> subprocess.Popen[str]:
    """Start a supervisor of a shell script in place of a server."""
    words = ("-m", "srp4ctr.ops.triton.supervisor", "127.0.0.1:1", str(folder), "--")
    return subprocess.Popen(
        [sys.executable, *words, "bash", "-c", script],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)]
)
def test_it_ends_with_the_server_s_own_status(
    tmp_path: Path, script: str, status: int
) -> None:
    running = supervised(tmp_path, script)
    running.communicate(timeout=60)
    assert running.returncode == status


def test_a_signal_reaches_the_server_which_ends_in_its_own_time(tmp_path: Path) -> None:
    script = (
        'trap "sleep 1; echo answered; exit 7" TERM; echo up; while :; do sleep .1; done'
    )
    running = supervised(tmp_path, script)
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGTERM)
    rest, _ = running.communicate(timeout=60)
    assert (rest, running.returncode) == ("answered\n", 7)


def test_a_signal_while_the_server_starts_reaches_it(tmp_path: Path) -> None:
    code = (
        "import os, runpy, signal, subprocess, sys, time\n"
        "class Slow(subprocess.Popen):\n"
        "    def __init__(self, *given, **named):\n"
        "        super().__init__(*given, **named)\n"
        "        time.sleep(2)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "subprocess.Popen = Slow\n"
        "sys.argv = ['s', '127.0.0.1:1', sys.argv[1], '--', 'bash', '-c', sys.argv[2]]\n"
        "runpy.run_module('srp4ctr.ops.triton.supervisor', run_name='__main__')"
    )
    script = 'trap "exit 7" TERM; for i in {1..600}; do sleep .1; done'
    result = subprocess.run([sys.executable, "-c", code, tmp_path, script], cwd=ROOT)
    assert result.returncode == 7


def test_what_the_server_leaves_behind_is_reaped_and_does_not_end_it(
    tmp_path: Path,
) -> None:
    # As the first process of a container it becomes the parent of orphans; here it is made
    # that by the kernel's subreaper.
    code = (
        "import ctypes, runpy, sys\n"
        "ctypes.CDLL(None).prctl(36, 1)\n"  # PR_SET_CHILD_SUBREAPER
        "sys.argv = ['s', '127.0.0.1:1', sys.argv[1], '--', 'bash', '-c', sys.argv[2]]\n"
        "runpy.run_module('srp4ctr.ops.triton.supervisor', run_name='__main__')"
    )
    script = "(sleep .5 & echo $!); sleep 3; exit 5"
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    orphan = int(running.stdout.readline())
    time.sleep(2.0)
    assert running.poll() is None
    assert not Path(f"/proc/{orphan}").exists()  # neither alive nor a zombie
    running.communicate(timeout=60)
    assert running.returncode == 5


def test_the_server_does_not_get_the_supervisor_s_own_packages(tmp_path: Path) -> None:
    running = supervised(
        tmp_path, 'echo "<$PYTHONPATH$VIRTUAL_ENV>"', PYTHONPATH=str(ROOT), VIRTUAL_ENV="/x"
    )
    found, _ = running.communicate(timeout=60)
    assert found == "<>\n"
