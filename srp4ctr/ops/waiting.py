"""A part that is not there yet → the call that needs it, made again until it answers.

For processes that are started beside what they need, as containers are: they say once what
they wait for, and SIGTERM ends them meanwhile. What waiting cannot mend, as a refused
password, is raised at once.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from srp4ctr.errors import OutageError

T = TypeVar("T")
_FIRST_S, _LONGEST_S = 1.0, 15.0
_AGAIN_S = 60.0  # how often the same sentence is said


def until_there(
    call: Callable[[], T],
    say: Callable[[str], None],
    sleep: Callable[[float], Any] = time.sleep,
) -> T:
    """Return what ``call`` returns, called again for as long as it raises ``OutageError``.

    ``say`` is told what is waited for: when that changes, and once a minute.
    """
    wait_s, said, silent_s = _FIRST_S, "", 0.0
    while True:
        try:
            return call()
        except OutageError as outage:
            if str(outage) != said or silent_s >= _AGAIN_S:
                said, silent_s = str(outage), 0.0
                say(f"waiting: {outage}")
        sleep(wait_s)
        silent_s += wait_s
        wait_s = min(2 * wait_s, _LONGEST_S)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block in order, wherever it is: between steps or inside one.

    What a step had begun is undone or resumed, as after any exception; a second signal
    does not disturb that. Without it a container's first process would ignore SIGTERM.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
