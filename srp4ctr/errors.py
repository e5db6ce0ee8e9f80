"""The error of a server that does not answer yet, and the retry that waits for it."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_FIRST_S, _LONGEST_S = 1.0, 15.0
_REPORT_AGAIN_S = 60.0


class OutageError(ValueError):
    """A server does not answer, or there are no labels yet; says which, and what to do.

    A command that a person typed ends with it; a long-running process retries.
    """


def retry_during_outage(
    call: Callable[[], _T],
    report: Callable[[str], None],
    sleep: Callable[[float], Any] = time.sleep,
) -> _T:
    """Return what ``call`` returns, repeated for as long as it raises ``OutageError``.

    For processes that start together with the servers that they need, as containers do.
    ``report`` gets the reason when it changes, and once a minute. Any other error, as a
    refused password, is raised at once.
    """
    wait_s, reported, silent_s = _FIRST_S, "", 0.0
    while True:
        try:
            return call()
        except OutageError as outage:
            if str(outage) != reported or silent_s >= _REPORT_AGAIN_S:
                reported, silent_s = str(outage), 0.0
                report(f"waiting: {outage}")
        sleep(wait_s)
        silent_s += wait_s
        wait_s = min(2 * wait_s, _LONGEST_S)
