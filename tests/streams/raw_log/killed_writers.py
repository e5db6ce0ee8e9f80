"""A raw log that is written, compacted and erased by processes which are killed at random.

Run as a program, because what it forks must begin without threads of another: prints how
many were killed, and how often a writer found that it had lost its partitions.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

from srp4ctr.errors import OutageError
from srp4ctr.streams.raw_log.compaction import compact
from srp4ctr.streams.raw_log.delta_tables import (
    append,
    created,
    next_offset,
    vacuum,
)
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.streams.raw_log.log_tables import Row, table_of
from tests.streams.logs import TOPIC, rows_between

PARTITIONS = {0: (0, 1), 1: (2, 3)}  # by writer
AT_ONCE = 40
LOST = 3  # exit status of a writer that was suspended, and lost its partitions
FORGETS_AT = 400
ANN = "ann"


def main(log: str, kills: str, seed: str) -> None:
    """Write the log ``log`` until enough processes were killed."""
    chance = random.Random(int(seed))
    works: list[Callable[[], None]] = [partial(write, log, w) for w in PARTITIONS]
    works += [partial(tidy, log), partial(erase, log)]
    running = {_fork(work): work for work in works}
    killed = lost = 0
    while killed < int(kills):
        time.sleep(chance.random() * 0.4)
        for pid, work in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                assert os.waitstatus_to_exitcode(status) == LOST
                lost += 1
                del running[pid]
                running[_fork(work)] = work
        pid = chance.choice(list(running))
        work = running.pop(pid)
        running[_fork(work)] = work
        if chance.random() < 0.2:  # suspended, while another has its partitions
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        lost += os.waitstatus_to_exitcode(status) == LOST
        killed += 1
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sys.stdout.write(f"{killed} {lost}\n")


def _fork(work: Callable[[], None]) -> int:
    if pid := os.fork():
        return pid
    try:
        while True:
            try:
                work()
            except OutageError:
                time.sleep(0.01)
    finally:
        os._exit(1)


def write(log: str, writer: int) -> None:
    """Append to the writer's partitions from where the table says."""
    table = created(log, TOPIC)
    at = {partition: next_offset(table, partition) or 0 for partition in PARTITIONS[writer]}
    while True:
        taken = {p: range(o, o + AT_ONCE) for p, o in at.items()}
        rows = [row for p, each in taken.items() for row in _rows(p, each)]
        if not append(table, table_of(TOPIC, rows), taken):
            os._exit(LOST)
        at = {each: taken[each].stop for each in at}


def _rows(partition: int, taken: range) -> list[Row]:
    """Return rows of which every tenth is of ann, who once requests erasure."""
    found = []
    for row in rows_between(taken.start, taken.stop):
        offset = row[-1]
        user = ANN if offset % 10 == 0 else "bob"
        kind = "forget" if offset == FORGETS_AT and partition == 0 else row[0]
        found.append((kind, *row[1:3], user, *row[4:-2], partition, offset))
    return found


def tidy(log: str) -> None:
    """Join small files, and remove unused ones."""
    for partition in range(4):
        compact(log, TOPIC, partition)
    vacuum(log, TOPIC)
    time.sleep(0.1)


def erase(log: str) -> None:
    """Erase who is forgotten."""
    erase_forgotten(log)
    time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
