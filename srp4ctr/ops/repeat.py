"""Runs a job at an interval until a signal ends the process."""

import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.processes import is_ending, is_interrupted

LOG = logging.getLogger(__name__)
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EXPECTED = (Srp4ctrError, OSError)  # their message is enough: no traceback
_RETRY_S = 60.0


def seconds_of(interval: str) -> float:
    """Return the seconds of ``30m``, ``1h`` or ``2d``; ``MistakeError`` otherwise."""
    match = re.fullmatch(r"([1-9][0-9]*)([smhd])", interval.strip())
    if not match:
        raise MistakeError(f"--every {interval}: write 30m, 1h or 2d")
    return int(match[1]) * _UNITS_S[match[2]]


def repeat(
    turn: Callable[[], object],
    interval_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], Any] = time.sleep,
    announce: bool = True,
) -> NoReturn:
    """Repeat ``turn`` until a signal ends the process; failures are reported or logged.

    One that takes longer than the interval is followed by the next at once; after an
    outage, or without labels, the next begins after a minute. ``announce`` says when.
    """
    while True:
        due = time.monotonic() + interval_s
        try:
            turn()
        except Exception as failure:
            if is_ending() or is_interrupted():
                raise
            if not isinstance(failure, _EXPECTED):
                LOG.exception("this turn failed; the next one resumes it")
            say(f"failed: {failure}")
            if isinstance(failure, OutageError):
                due = min(due, time.monotonic() + _RETRY_S)
        wait_s = max(due - time.monotonic(), 0.0)
        next_at = datetime.now(tz=UTC) + timedelta(seconds=wait_s)
        if announce:
            say(f"next refresh: {next_at:%Y-%m-%d %H:%M:%S} UTC  (Ctrl-C ends)")
        sleep(wait_s)
