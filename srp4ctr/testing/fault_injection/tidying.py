"""Joins the raw log's files and removes the old ones, all the time: it is hourly else."""

import threading
from dataclasses import dataclass, field

from srp4ctr.errors import OutageError
from srp4ctr.streams.raw_log.compaction import compact
from srp4ctr.streams.raw_log.delta_tables import LOGGED_TOPICS, Log, vacuum

_PAUSE_S = 1.0


@dataclass(slots=True)
class Tidying:
    """Does so in a thread of its own, from ``start`` until ``end``."""

    log: Log
    partitions: int
    rounds: int = 0
    merged: int = 0
    """Files."""
    refused: int = 0
    """Calls that ended with a conflict, or while the log's server was away."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _failure: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Stop; raises the error that ended it before, if one did."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise RuntimeError("tidying the raw log has failed") from self._failure

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE_S):
            for topic in LOGGED_TOPICS:
                try:
                    for partition in range(self.partitions):
                        self.merged += compact(self.log, topic, partition)
                    vacuum(self.log, topic, at_once=True)
                except OutageError:
                    self.refused += 1
                except Exception as error:
                    self._failure = error
                    return
            self.rounds += 1
