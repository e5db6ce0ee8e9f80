"""The raw log's lock: readers share it; who takes files away must have it alone.

Merging and the retention take away files that a reader may have listed and not yet read.
Who takes away waits for nobody, and holds the lock no longer than names are removed (10 ms
for 256). The kernel takes the lock from a process that dies.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

LOCK_FILE = ".lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_log = logging.getLogger(__name__)


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
def taking_away(log_dir: Path, *, without_locks: bool = False) -> Iterator[bool]:
    """Yield whether the block may take files away: nobody reads until it ends.

    Never waits. Where the file system knows no locks nobody can tell, and the answer is
    ``without_locks``. Raises ``OSError`` where the lock cannot be opened.
    """
    descriptor = _opened(log_dir)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            is_alone = False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _say_no_locks(log_dir)
            is_alone = without_locks
        yield is_alone
    finally:
        _close(descriptor)


@cache  # once
def _say_no_locks(log_dir: Path) -> None:
    _log.warning(
        "the file system of %s knows no locks: its small files are not merged, and the "
        "retention removes old dates whoever reads them",
        log_dir,
    )


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
