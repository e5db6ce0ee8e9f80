"""Watches how processes of others end, which only their parent and a tracer can see."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

_SEIZE, _CONT, _EXIT_TOO = 0x4206, 7, 0x40000000  # of linux/ptrace.h, and wait's __WALL
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


@contextmanager
def watched(pids: Iterable[int]) -> Iterator[dict[int, set[int]]]:
    """Yield, by process, the signals that its main thread gets until the block's end.

    The block has to end the processes. Skips where tracing is not allowed.
    """
    seen: dict[int, set[int]] = {pid: set() for pid in pids}
    refused: list[int] = []
    all_watched = threading.Barrier(len(seen) + 1)

    def watch(pid: int) -> None:  # only the thread that traces a process can wait for it
        if _libc.ptrace(_SEIZE, pid, None, None):
            refused.append(ctypes.get_errno())
        all_watched.wait()
        while not refused and os.WIFSTOPPED(status := os.waitpid(pid, _EXIT_TOO)[1]):
            seen[pid].add(number := os.WSTOPSIG(status))
            _libc.ptrace(_CONT, pid, None, number)

    threads = [threading.Thread(target=watch, args=(pid,), daemon=True) for pid in seen]
    for thread in threads:
        thread.start()
    all_watched.wait()
    if refused:
        pytest.skip(f"tracing is not allowed here: {os.strerror(refused[0])}")
    yield seen
    for thread in threads:
        thread.join()
