"""Keeps the table of items of one store fresh: a process of its own, one per host.

In: the stream of changed rows, which their writers leave in the store, and, at the start
and every few hours, all rows of items. Out: the mapped table that serving looks items up
in. A serving process starts it by a ``RefresherWatch``; it ends once none is left.
"""

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from srp4ctr import logs
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_feed, row_codec
from srp4ctr.features.online.item_map import IS_DOWN, UP_TO_DATE_MS, ItemMemory
from srp4ctr.features.online.item_writer import ItemWriter
from srp4ctr.features.online.row_codec import HashRow
from srp4ctr.features.online.store import OnlineViews
from srp4ctr.retries import retry

LOG = logging.getLogger(__name__)
# Files in the table's folder: a lock of the first is held by the refresher, one of the
# second by every serving process.
_REFRESHER = "refresher"
_READERS = "readers"
TURNS = 4  # within features.item_refresh_s
_ENTRIES = 500  # of the stream in one reply
_KEYS_IN_SCAN = 10_000
KEYS_IN_READ = 500
# It finds rows of other writers than ours, as Feast.
SWEEP_EVERY_MS = 3_600_000
# A row that came by the stream so long before a sweep may not be stored yet.
_GRACE_MS = 60_000
_FAILED_SWEEP_MS = 10_000
_REFUSED_S = 10.0
_LOOK_EVERY_S = 0.5
_NICENESS = 5
_CHECK_EVERY_S = 1.0  # of a serving process, whether a refresher runs
_START_AGAIN_S = 5.0  # one that cannot run must not take a core by starting
_ENDS_WITHIN_S = 2.0
# The refreshers that this process started: only it can reap them.
_children: list[subprocess.Popen[bytes]] = []


class Refresher:
    """Reads the stream and the rows of items of one store into the table in ``memory``."""

    def __init__(self, views: OnlineViews, memory: ItemMemory) -> None:
        self._views, self._memory = views, memory
        self._writer = ItemWriter(memory)
        if memory.current() is None:
            self._writer.publish()  # fewer items are better than none
        self._last: bytes | None = None
        """The entry of the stream that was read last."""
        self._is_whole = False
        self._sweep: Iterator[None] | None = None
        self._sweep_at_ms = 0

    def fill(self) -> None:
        """Read all that is stored; raise ``OutageError`` if the store does not answer."""
        self._is_whole, self._sweep, self._sweep_at_ms = False, None, 0
        while not self._is_whole:
            self.turn(0.0)

    def turn(self, seconds: float) -> None:
        """Read what is new, then rows for a sweep: for ``seconds`` if one is needed.

        Raises ``OutageError`` if the store does not answer.
        """
        until, began_ms = time.monotonic() + seconds, time.time_ns() // 1_000_000
        self._read_stream()
        if _now_ms() >= self._sweep_at_ms:
            self._step()
            while not self._is_whole and time.monotonic() < until:
                self._step()
        head = self._memory.head
        if self._is_whole:
            head[UP_TO_DATE_MS] = max(began_ms, int(head[UP_TO_DATE_MS]))
        head[IS_DOWN] = 0

    def _read_stream(self) -> None:
        """Write the rows that changed; if some were missed, have all rows read."""
        if self._last is None and not self._is_whole:
            newest = self._views.call(
                lambda client: client.xrevrange(item_feed.STREAM, count=1)
            )
            self._last = newest[0][0] if newest else None
        is_over = False
        while not is_over:
            found = self._views.call(partial(_entries, self._last))
            is_over = len(found) < _ENTRIES
            if self._last is not None:
                # The entry read last is there, or later ones may be gone with it.
                if found and found[0][0] == self._last:
                    del found[0]
                else:
                    LOG.warning("changed items were missed: reading all of them")
                    self._is_whole, self._sweep, self._sweep_at_ms = False, None, 0
                    self._last = None
            if found:
                self._last = found[-1][0]
                changes = item_feed.read_entries(fields for _, fields in found)
                self._writer.put(changes, _now_ms())

    def _step(self) -> None:
        """Do the next part of a sweep; a failed one begins again after a while."""
        self._sweep = self._sweep or self._swept()
        try:
            next(self._sweep)
        except StopIteration:
            self._sweep, self._is_whole = None, True
            self._sweep_at_ms = _now_ms() + SWEEP_EVERY_MS
        except OutageError:
            self._sweep, self._sweep_at_ms = None, _now_ms() + _FAILED_SWEEP_MS
            raise

    def _swept(self) -> Iterator[None]:
        """Write the rows of all items, part by part, and drop what is not stored."""
        since = _now_ms() - _GRACE_MS
        for keys in self._scanned():
            for start in range(0, max(len(keys), 1), KEYS_IN_READ):
                changes = self._stored(keys[start : start + KEYS_IN_READ])
                self._writer.put(changes, _now_ms(), since)
                yield
        self._writer.drop_before(since)
        self._writer.publish()

    def _scanned(self) -> Iterator[list[bytes]]:
        """Yield the keys of all rows of items, of each node that has some."""
        for node in self._views.nodes():
            cursor = None
            while cursor != 0:
                cursor, keys = self._views.call(partial(_scan, node, cursor or 0))
                yield keys

    def _stored(self, keys: list[bytes]) -> item_feed.Changes:
        found = []
        kinds = (
            (row_codec.ITEM_ACTIVITY.fields, item_feed.is_share),
            (row_codec.ATTRIBUTES.fields, item_feed.is_profile),
        )
        for fields, is_of in kinds:
            names = list(filter(is_of, keys))
            hashes = self._views.call(partial(_hashes, names, fields))
            for key, (time_of, value) in zip(names, hashes, strict=True):
                if version := _version_us(key, time_of or b""):
                    found.append(
                        HashRow(key=key, version_us=version, values=(value or b"",))
                    )
        return item_feed.stored_changes(found)


def _version_us(key: bytes, time_of: bytes) -> int:
    """Return a row's version; 0 where there is none, or its time cannot be read."""
    try:
        return row_codec.version_us(time_of)
    except DecodeError:
        LOG.warning("the time of an item's row is damaged: %s", key.hex())
        return 0


def _hashes(keys: list[bytes], fields: tuple[bytes, ...], client: Any) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hmget(key, fields)
        answer: list[Any] = pipe.execute()
    return answer


def _entries(after: bytes | None, client: Any) -> list[Any]:
    """Return the stream's entries from ``after`` on, that one included."""
    found: list[Any] = client.xrange(item_feed.STREAM, min=after or "-", count=_ENTRIES)
    return found


def _scan(node: Any, cursor: int, client: Any) -> tuple[int, list[bytes]]:
    pattern, count = item_feed.KEYS_PATTERN, _KEYS_IN_SCAN
    found: tuple[int, list[bytes]] = node.scan(cursor, match=pattern, count=count)
    return found


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class _Readers:
    """The processes that use a table: each holds a lock of one file in its folder."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / _READERS, os.O_RDWR | os.O_CREAT, 0o600)
        self._are_gone = False

    def are_gone(self) -> bool:
        """Return whether none is left: from then on new ones wait for our end."""
        with suppress(BlockingIOError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._are_gone = True
        return self._are_gone

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than there are readers."""
        until = time.monotonic() + seconds
        while (rest_s := until - time.monotonic()) > 0 and not self.are_gone():
            time.sleep(min(rest_s, _LOOK_EVERY_S))


def run(config: FeatureConfig, folder: Path) -> None:
    """Keep the table in ``folder`` fresh for as long as it has readers."""
    memory, interval_s = ItemMemory(folder), config.item_refresh_s / TURNS
    refresher, readers = Refresher(OnlineViews(config), memory), _Readers(folder)

    def turn() -> None:
        try:
            refresher.turn(interval_s)
        except (OutageError, MistakeError):
            memory.head[IS_DOWN] = 1
            raise

    while not readers.are_gone():
        due_s = time.monotonic() + interval_s
        try:
            over, pause = readers.are_gone, readers.pause
            retry("item_refresher", turn, should_stop=over, sleep=pause)
        except OutageError:  # and no reader is left
            break
        except MistakeError as error:  # a refused password may be accepted later
            LOG.error("the table of items is not refreshed: %s", error)
            due_s += _REFUSED_S
        readers.pause(due_s - time.monotonic())
    memory.clear()


class RefresherWatch:
    """Starts the host's refresher if none runs, now and whenever one has ended.

    A refresher holds a lock; it ends when no reader holds the readers' lock any more.
    """

    def __init__(self, config: FeatureConfig, folder: Path) -> None:
        self._config = replace(config, item_fields=(), user_fields=())
        self._folder = folder
        self._readers = os.open(folder / _READERS, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._readers, fcntl.LOCK_SH)  # waits while a refresher ends
        self._not_before_s = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="item-table", daemon=True)

    def start(self) -> None:
        """Look once, and from now on in a thread."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the refresher ends unless other processes need it."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_ENDS_WITHIN_S)
        if self._readers < 0:
            return
        try:
            fcntl.flock(self._readers, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_last = True
        except BlockingIOError:
            is_last = False
        os.close(self._readers)
        self._readers = -1
        for child in _children if is_last else ():
            with suppress(subprocess.TimeoutExpired):
                child.wait(_ENDS_WITHIN_S)

    def look(self) -> None:
        """Start a refresher if none runs."""
        _children[:] = [child for child in _children if child.poll() is None]
        if time.monotonic() < self._not_before_s:
            return
        try:
            lock = os.open(self._folder / _REFRESHER, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._start(lock)
            finally:
                os.close(lock)
        except OSError as error:
            LOG.error("the refresher of the table of items does not start: %s", error)

    def _start(self, lock: int) -> None:
        """Start a refresher that holds ``lock``; its settings are in no argument."""
        child = subprocess.Popen(
            [_python(), "-m", __name__, str(self._folder)],
            stdin=subprocess.PIPE,
            pass_fds=[lock],
            cwd="/",
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
            },
            start_new_session=True,  # it outlives the process that starts it
        )
        _children.append(child)
        self._not_before_s = time.monotonic() + _START_AGAIN_S
        assert child.stdin is not None
        with child.stdin as settings:
            settings.write(json.dumps(asdict(self._config)).encode())

    def _run(self) -> None:
        while not self._stopped.wait(_CHECK_EVERY_S):
            self.look()


def _python() -> str:
    """Return a Python of this version: a step's is embedded in a process of Triton's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefixes = (sys.prefix, sys.base_prefix)
    places = [
        Path(prefix, "bin", name) for prefix in prefixes for name in (version, "python3")
    ]
    found = [sys.executable, *map(str, places)]
    return next(
        (p for p in found if "python" in Path(p).name and os.access(p, os.X_OK)), "python3"
    )


def main() -> None:
    """Refresh the table in the folder of the argument; the settings come by stdin."""
    config = FeatureConfig(**json.load(sys.stdin))
    logs.configure("item-refresher")
    os.nice(_NICENESS)
    run(config, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
