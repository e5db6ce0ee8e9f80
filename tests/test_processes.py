"""Processes with a log and a pid file, and what happens when they or their parent end."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from srp4ctr import processes

SLEEP = processes.python("sleeper", "-c", "import time; time.sleep(60)")
STUBBORN = processes.python(
    "stubborn",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(60)",
)


def read_log(running: processes.Running) -> str:
    return Path(running.log).read_text()


def test_a_started_process_is_found_until_it_is_stopped(tmp_path: Path) -> None:
    running = processes.start(SLEEP, tmp_path, tied=True)
    assert processes.find(tmp_path) == [running]
    processes.stop(running, tmp_path)
    assert not running.is_alive()
    assert processes.find(tmp_path) == []


TALKING = """
import sys, threading, time
from pathlib import Path
from srp4ctr import processes
import grpc


def talk():
    while True:
        with grpc.insecure_channel("127.0.0.1:1") as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=0.01)
            except grpc.FutureTimeoutError:
                pass


threading.Thread(target=talk, daemon=True).start()
time.sleep(0.2)
for number in range(20):
    program = processes.Program(name=f"p{number}", command=("/bin/true",))
    processes.start(program, Path(sys.argv[1]), tied=True)
print("started", flush=True)
"""


def test_who_talks_to_a_server_can_start_processes(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", TALKING, str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "started" in result.stdout
    assert "fork" not in result.stderr  # gRPC's handlers speak up where they run


def test_a_process_deaf_to_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    running = processes.start(STUBBORN, tmp_path, tied=True)
    processes.wait_ready(running, lambda: "deaf" in read_log(running))
    processes.stop(running, tmp_path, grace_s=0.2)
    assert not running.is_alive()


@pytest.mark.parametrize("tied", [True, False])
def test_what_callers_wait_for_goes_before_the_rest(tied: bool, tmp_path: Path) -> None:
    first = processes.start(replace(SLEEP, latency_critical=True), tmp_path, tied=tied)
    rest = processes.start(replace(SLEEP, name="rest"), tmp_path, tied=tied)
    processes.wait_ready(rest, lambda: niceness(rest) > niceness(first))
    autogroup = Path(f"/proc/{rest.pid}/autogroup")
    if autogroup.is_file():  # else the kernel shares cores out by processes alone
        assert int(autogroup.read_text().split()[-1]) > 0
    for running in (first, rest):
        processes.stop(running, tmp_path)


def niceness(running: processes.Running) -> int:
    return os.getpriority(os.PRIO_PROCESS, running.pid)


def test_a_process_that_ends_at_the_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    program = processes.python("broken", "-c", "raise SystemExit('no such thing')")
    running = processes.start(program, tmp_path, tied=True)
    with pytest.raises(processes.ProcessError, match="no such thing") as error:
        processes.wait_ready(running, lambda: False)
    assert running.log in str(error.value)
    processes.stop(running, tmp_path)


@pytest.mark.parametrize("failing", ["write_json", "_renice"])
def test_a_process_that_could_not_be_recorded_does_not_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """As on a full disk, or with Ctrl-C: no command would find it to stop it."""

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, failing, fails)
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(KeyboardInterrupt):
        processes.start(SLEEP, tmp_path, tied=False)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_process_that_is_too_slow_is_an_error(tmp_path: Path) -> None:
    running = processes.start(SLEEP, tmp_path, tied=True)
    with pytest.raises(processes.ProcessError, match="not ready after"):
        processes.wait_ready(running, lambda: False, timeout_s=0.1)
    processes.stop(running, tmp_path)


def test_an_ended_process_is_noticed(tmp_path: Path) -> None:
    running = processes.start(SLEEP, tmp_path, tied=True)
    processes.check_alive(running)
    processes.stop(running, tmp_path)
    with pytest.raises(processes.ProcessError, match="sleeper has ended"):
        processes.check_alive(running)


def test_a_pid_file_of_another_process_with_the_same_pid_is_stale(tmp_path: Path) -> None:
    pid_file = tmp_path / "run" / "old.json"
    pid_file.parent.mkdir()
    record = {"name": "old", "pid": os.getpid(), "birth": "earlier-boot:1", "log": "-"}
    pid_file.write_text(json.dumps(record))
    assert processes.find(tmp_path) == []
    assert not pid_file.exists()


def test_a_tied_process_ends_with_its_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT.format(folder=str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    (child,) = processes.find(tmp_path)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while child.is_alive() and time.monotonic() < deadline:
        os.sched_yield()
    assert not child.is_alive()


_PARENT = """
import time
from pathlib import Path
from srp4ctr import processes
program = processes.python("child", "-c", "import time; time.sleep(60)")
processes.start(program, Path({folder!r}), tied=True)
print("started", flush=True)
time.sleep(60)
"""


def test_sigterm_ends_the_block_as_an_exception_would() -> None:
    undone = []

    def turn() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not disturb
            undone.append(True)

    with pytest.raises(SystemExit) as end, processes.ended_by_sigterm():
        turn()
    assert end.value.code == 0
    assert undone == [True]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_process_has_ended_once_it_is_known_here_and_gone() -> None:
    code = "from srp4ctr import processes; print(processes.identity())"
    words = [sys.executable, "-c", code]
    gone = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    assert processes.has_ended(gone)
    assert not processes.has_ended(processes.identity())
    *first, namespace, birth = gone.split()
    elsewhere = [*first, "pid:[1]", birth], [*first, namespace, "another-boot:1"]
    assert not any(processes.has_ended(" ".join(each)) for each in elsewhere)
