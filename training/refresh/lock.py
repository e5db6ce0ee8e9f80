"""One refresh at a time: a lock file in the bundles' folder, with its holder.

The kernel releases the lock of a process that ends, so that no file has to be removed by
hand; its content is for people.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

LOCK_FILE = "refresh.lock"


class RefreshIsRunningError(RuntimeError):
    """Another refresh holds the lock; the message names it."""


@contextmanager
def held(bundles_dir: Path) -> Iterator[str]:
    """Hold the lock of ``bundles_dir`` while the block runs.

    Yields a note where the last holder was killed, "" otherwise. Raises
    ``RefreshIsRunningError`` at once where another process holds it.
    """
    bundles_dir.mkdir(parents=True, exist_ok=True)
    with (bundles_dir / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefreshIsRunningError(
                f"a refresh runs already in {bundles_dir}: {_holder(file)}. Wait for it, "
                "or end it: the next one resumes where it was"
            ) from None
        dead = _holder(file)
        _write(file, {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()})
        try:
            yield f"took over from a refresh that died: {dead}" if dead else ""
        finally:  # only a kill leaves the holder's name
            _write(file, None)


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _write(file: TextIO, holder: dict[str, object] | None) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(holder) if holder else "")
    file.flush()


def _now() -> str:
    return datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
