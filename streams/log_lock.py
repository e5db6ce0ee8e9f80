"""The raw log's lock: readers share it; who takes files away must have it alone.

Merging and the retention take away files that a reader may have listed and not yet read.
Who takes away waits for nobody, and holds the lock no longer than names are removed (10 ms
for 256). The kernel takes the lock from a process that dies.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_FILE = ".lock"


@contextmanager
def reading(log_dir: Path) -> Iterator[None]:
    """Hold the lock with other readers while the block lists files and reads them.

    Goes on without where there is none to be had: an absent log, a folder that we may not
    write to before its writer made the file, a file system that knows no locks.
    """
    descriptor = None
    with suppress(OSError):
        descriptor = _opened(log_dir)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        _close(descriptor)


@contextmanager
def taking_away(log_dir: Path) -> Iterator[bool]:
    """Yield whether the block may take files away: nobody reads until it ends.

    Never waits. Raises ``OSError`` where there is no lock to be had.
    """
    descriptor = _opened(log_dir)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            is_alone = False
        yield is_alone
    finally:
        _close(descriptor)


def _opened(log_dir: Path) -> int:
    """Return a descriptor of the lock's own: one that is shared would share the lock."""
    try:
        return os.open(log_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # another user's, or mounted read-only
        return os.open(log_dir / LOCK_FILE, os.O_RDONLY)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        with suppress(OSError):  # a file system that knows no locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # whoever was forked has it open too
        os.close(descriptor)
