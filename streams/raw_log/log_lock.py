"""The raw log's lock: readers share it; removing files needs it exclusively.

Merging and the retention remove files that a reader may have listed and not yet read. They
never wait for the lock, and hold it no longer than names are removed (10 ms for 256). The
kernel releases the lock of a process that ends.
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

    Goes on without it where there is none: an absent log, a folder that we may not write
    to before its writer made the file, a file system without locks.
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
def removing(log_dir: Path, *, without_locks: bool = False) -> Iterator[bool]:
    """Yield whether the block may remove files: nobody reads until it ends.

    Never waits. On a file system without locks it yields ``without_locks``. Raises
    ``OSError`` where the lock cannot be opened.
    """
    descriptor = _opened(log_dir)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_exclusive = True
        except BlockingIOError:
            is_exclusive = False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _warn_no_locks(log_dir)
            is_exclusive = without_locks
        yield is_exclusive
    finally:
        _close(descriptor)


@cache  # once
def _warn_no_locks(log_dir: Path) -> None:
    _log.warning(
        "the file system of %s knows no locks: its small files are not merged, and the "
        "retention removes old dates while they are read",
        log_dir,
    )


def _opened(log_dir: Path) -> int:
    """Return a new descriptor of the lock file: a shared one would share the lock."""
    try:
        return os.open(log_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # another user's, or mounted read-only
        return os.open(log_dir / LOCK_FILE, os.O_RDONLY)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process has it open too
        os.close(descriptor)
