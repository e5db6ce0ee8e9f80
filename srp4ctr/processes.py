"""Starts, finds and stops processes; each has a log and a pid file under one folder.

Every process leads a session of its own, so that Ctrl-C reaches only the caller, which
stops the others in order. A *tied* process also ends with the process that started it. The
niceness of all but the latency-critical ones is raised.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.errors import OutageError

DEAD = "ZX"  # states of a process that has ended
# Has the kernel end it with its parent, if that still runs, and becomes the command. Not
# in a preexec_fn, for which Python forks: gRPC's fork handlers were seen to block forever
# while a thread called Triton.
_END_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
parent, *command = sys.argv[1:]
if os.getppid() == int(parent):
    os.execvp(command[0], command)
"""
_NICENESS = 5  # a third of the weight: the process must still keep up
_POLL_S = 0.05
_PORT_IN_USE_RETRY_S = 10.0  # a restart within 1–2 s may find its port in use
_LOG_TAIL_LINES = 12

_interrupted = threading.Event()
# Popen objects of our own children, by pid: only they can be reaped.
_children: dict[int, subprocess.Popen[bytes]] = {}


class ProcessError(OutageError):
    """A process ended or was not ready; the message has its log's name and last lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run."""

    name: str
    """Names the log and the pid file; one running process per name and folder."""
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's environment."""
    cwd: str | None = None
    latency_critical: bool = False
    """Callers wait for it: it is not niced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A started process, as recorded in its pid file."""

    name: str
    pid: int
    birth: str
    """Boot and start time: distinguishes it from a later process with the same pid."""
    log: str

    def is_alive(self) -> bool:
        """Return whether exactly this process still runs."""
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            return False
        return _birth(self.pid) == self.birth


def start(program: Program, folder: Path, *, tied: bool) -> Running:
    """Start ``program``; its log is ``folder/logs/NAME.log``, its pid in ``folder/run``.

    A tied process gets SIGTERM when the *thread* that started it ends: start from the
    main thread.
    """
    log = folder / "logs" / f"{program.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = program.command if program.latency_critical else _nice(program.command)
    with log.open("ab") as sink:
        child = subprocess.Popen(
            _tied(command) if tied else command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=program.cwd,
            env={**os.environ, **program.env},
            start_new_session=True,
        )
    _children[child.pid] = child
    running = Running(
        name=program.name, pid=child.pid, birth=_birth(child.pid) or "", log=str(log)
    )
    try:
        write_json(_pid_file(folder, program.name), running)
        if not program.latency_critical:
            _renice(child.pid)
    except BaseException:  # without its file no command would find it
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        del _children[child.pid]
        raise
    return running


def launch(
    program: Program,
    folder: Path,
    is_ready: Callable[[], bool],
    *,
    tied: bool,
    timeout_s: float = 90.0,
) -> Running:
    """Start ``program`` and return once ``is_ready()``; else stop it: ``ProcessError``.

    A port that its former process left a moment ago is waited for.
    """
    deadline = time.monotonic() + _PORT_IN_USE_RETRY_S
    while True:
        running = start(program, folder, tied=tied)
        try:
            wait_ready(running, is_ready, timeout_s=timeout_s)
        except ProcessError as error:
            stop(running, folder)
            if "already in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return running


def python(name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Program:
    """Return a program of this Python: ``python("worker", "-m", "srp4ctr.cli", …)``."""
    command = (sys.executable, *arguments)
    return Program(name=name, command=command, env=env or {})


def find(folder: Path) -> list[Running]:
    """Return the running processes of ``folder``; stale pid files are removed."""
    found = []
    for pid_file in sorted((folder / "run").glob("*.json")):
        running = read_json(pid_file, Running)
        if running is not None and running.is_alive():
            found.append(running)
        else:
            pid_file.unlink(missing_ok=True)
    return found


def is_any_alive(folder: Path) -> bool:
    """Return whether a process of ``folder`` runs; no pid file is removed."""
    files = (folder / "run").glob("*.json")
    known = (read_json(file, Running) for file in files)
    return any(each is not None and each.is_alive() for each in known)


def stop(running: Running, folder: Path, *, grace_s: float = 10.0) -> None:
    """End the process and its group: SIGTERM, then SIGKILL after ``grace_s``."""
    if running.is_alive():
        os.kill(running.pid, signal.SIGTERM)
        _wait_until_gone(running, grace_s)
        # Its orphans, and the process itself if the grace was not enough.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, signal.SIGKILL)
        _wait_until_gone(running, 5.0)
    child = _children.pop(running.pid, None)
    if child is not None:
        child.wait()
    _pid_file(folder, running.name).unlink(missing_ok=True)


def wait_ready(
    running: Running, is_ready: Callable[[], bool], *, timeout_s: float = 90.0
) -> None:
    """Return once ``is_ready()``; raise ProcessError if the process ends or is too slow."""
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        if not running.is_alive():
            raise ProcessError(f"{running.name} ended while it started\n{_tail(running)}")
        if time.monotonic() > deadline:
            raise ProcessError(
                f"{running.name} was not ready after {timeout_s:.0f} s\n{_tail(running)}"
            )
        time.sleep(_POLL_S)


def check_alive(running: Running) -> None:
    """Raise ProcessError if the process has ended."""
    if not running.is_alive():
        raise ProcessError(f"{running.name} has ended\n{_tail(running)}")


@contextmanager
def ended_by_sigterm(status: int = 0) -> Iterator[None]:
    """Let SIGTERM end the block as an exception would: what it had begun is undone.

    ``status`` is the process' exit status: 0 of a service, which has no end of its own.

    A second signal does not interrupt that. Without it a container's first process would
    ignore SIGTERM. DuckDB makes an error of its own of an exception that a signal raises
    while it calls Python: that is the same end.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(status)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Exception as error:
        if is_ending():
            raise SystemExit(status) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def is_ending() -> bool:
    """Return whether SIGTERM is ending a block of ``ended_by_sigterm``."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@contextmanager
def noticing_interrupts() -> Iterator[None]:
    """Have ``is_interrupted`` know of a Ctrl-C in the block, whatever it was made into.

    DuckDB, for example, raises an error of its own where a signal's handler raised.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # ignored, as of a process in the background
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        _interrupted.set()
        signal.default_int_handler(number, frame)

    _interrupted.clear()
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_interrupted() -> bool:
    """Return whether a Ctrl-C came in the last block of ``noticing_interrupts``."""
    return _interrupted.is_set()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold ``file`` for this process while the block runs; another one waits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stat_fields(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the third on: state, parent, …

    Raises ``OSError`` if there is no such process.
    """
    # The command in parentheses may hold spaces: the fields count from its end.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _tail(running: Running) -> str:
    """Return where the log is and its last lines."""
    try:
        lines = Path(running.log).read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    last = "\n".join(f"  | {line}" for line in lines[-_LOG_TAIL_LINES:])
    return f"its log: {running.log}\n{last}"


def _wait_until_gone(running: Running, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while running.is_alive() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _pid_file(folder: Path, name: str) -> Path:
    return folder / "run" / f"{name}.json"


def _tied(command: Sequence[str]) -> tuple[str, ...]:
    """Return ``command`` as a child of this process that ends with it."""
    python = sys.executable, "-I", "-S", "-c", _END_WITH_PARENT
    return *python, str(os.getpid()), *command


def _nice(command: Sequence[str]) -> tuple[str, ...]:
    return "nice", "-n", str(_NICENESS), *command


def _renice(leader: int) -> None:
    """Raise the niceness of ``leader``'s session, where Linux schedules by sessions.

    There (``sched_autogroup``) the niceness of a process counts only within its session:
    Triton with all its steps would get no more than Kafka while that starts.
    """
    for _ in range(3):
        try:
            Path(f"/proc/{leader}/autogroup").write_text(str(_NICENESS))
        except BlockingIOError:  # users other than root may change one in 0.1 s
            time.sleep(0.1)
        except OSError:  # none here, or the process has ended
            return
        else:
            return


def identity() -> str:
    """Return host, pid, and what distinguishes this process: for ``has_ended``."""
    pid = os.getpid()
    return f"{socket.gethostname()} pid {pid} {_pid_namespace()} {_birth(pid)}"


def has_ended(identity: str) -> bool:
    """Return whether the process of ``identity()`` is known to have ended.

    False for one of another machine or container, whose processes are not visible here.
    """
    *_, pid, namespace, birth = identity.split()
    boot = (_birth(os.getpid()) or "").partition(":")[0]
    is_visible = (namespace, birth.partition(":")[0]) == (_pid_namespace(), boot)
    return is_visible and _birth(int(pid)) != birth


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        return "unknown"


def _birth(pid: int) -> str | None:
    """Return boot id and start tick of process ``pid``; None if it is gone or a zombie."""
    try:
        fields = stat_fields(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, start_tick = fields[0], fields[19]
    return None if state in DEAD else f"{boot}:{start_tick}"
