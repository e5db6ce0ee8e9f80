"""Refreshes one after another: each leaves word of how it ended, none ends the next."""

import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from srp4ctr.features.json_files import read_json, write_json
from srp4ctr.streams.outages import OutageError
from srp4ctr.training.reports import STATUS_FILE, RefreshReport, RefreshStatus

LOG = logging.getLogger(__name__)
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SAID = (ValueError, RuntimeError, OSError)  # written for people: no traceback
_AGAIN_S = 60.0
Refresh = Callable[[], RefreshReport]


def seconds_of(interval: str) -> float:
    """Return the seconds of ``30m``, ``1h`` or ``2d``; ``ValueError`` for anything else."""
    found = re.fullmatch(r"([1-9][0-9]*)([smhd])", interval.strip())
    if not found:
        raise ValueError(f"--every {interval}: write 30m, 1h or 2d")
    return int(found[1]) * _UNITS_S[found[2]]


def take_turn(
    refresh: Refresh, bundles_dir: Path, interval_s: float = 0.0
) -> RefreshReport:
    """Return what ``refresh`` returns or raises, and leave word of it for the monitor."""
    began = time.time()
    error = "stopped"  # by a signal, if by no exception
    report: RefreshReport | None = None
    try:
        report = refresh()
        error = ""
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        file = bundles_dir / STATUS_FILE
        status = _status(report, error, began, read_json(file, RefreshStatus))
        write_json(file, msgspec.structs.replace(status, interval_s=interval_s))
    return report


def _status(
    report: RefreshReport | None,
    error: str,
    began: float,
    before: RefreshStatus | None,
) -> RefreshStatus:
    ended_ms = round(time.time() * 1000)
    status = RefreshStatus(
        ended_at_ms=ended_ms,
        seconds=ended_ms / 1000 - began,
        error=error,
        last_success_ms=before.last_success_ms if before else 0,
    )
    if report is None:
        return status
    gates = {g.gate: g.passed for g in report.gates if g.passed is not None}
    return msgspec.structs.replace(
        status,
        last_success_ms=ended_ms,
        version=report.version,
        outcome=report.outcome.value,
        gates=gates,
    )


def repeat(
    turn: Callable[[], None],
    interval_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], Any] = time.sleep,
) -> None:
    """Take turns until a signal ends the process; one that fails is said or logged.

    One that takes longer than the interval is followed by the next at once, and one that
    lacked labels or a server by the next after a minute.
    """
    while True:
        due = time.monotonic() + interval_s
        try:
            turn()
        except _SAID as failure:
            say(f"failed: {failure}")
            if isinstance(failure, OutageError):
                due = min(due, time.monotonic() + _AGAIN_S)
        except Exception as failure:
            LOG.exception("this refresh failed; the next one goes on where it was")
            say(f"failed: {failure}")
        wait_s = max(due - time.monotonic(), 0.0)
        next_at = datetime.now(tz=UTC) + timedelta(seconds=wait_s)
        say(f"next refresh: {next_at:%Y-%m-%d %H:%M:%S} UTC  (Ctrl-C ends)")
        sleep(wait_s)
