"""Settings → refreshes, one or one after another: each leaves a status, none ends the next.

Torch is imported when a refresh begins.
"""

import logging
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.errors import OutageError
from srp4ctr.ops.promotion_service import promoter, serving_folder
from srp4ctr.ops.waiting import ended_by_sigterm
from srp4ctr.settings import Settings
from srp4ctr.training.refresh.reports import STATUS_FILE, RefreshReport, RefreshStatus

if TYPE_CHECKING:  # torch: 3 s
    from srp4ctr.training.loop.progress import ProgressListener

LOG = logging.getLogger(__name__)
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SAID = (ValueError, RuntimeError, OSError)  # written for people: no traceback
_AGAIN_S = 60.0
Refresh = Callable[[], RefreshReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPlan:
    """Which refreshes to run."""

    promote: bool = True
    """Serve the bundle if it passes all gates."""
    every: str = ""
    """``30m``, ``1h``, ``2d``: repeat until a signal; "": once."""
    from_scratch: bool = False
    """Do not continue training from the last bundle."""
    force: bool = False
    """Train even without new data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """How a person follows refreshes."""

    progress: Callable[[], AbstractContextManager["ProgressListener"]]
    """Entered for each refresh."""
    show: Callable[[RefreshReport], None]
    say: Callable[[str], None]


def run(settings: Settings, plan: RefreshPlan, display: Display) -> None:
    """Refresh once or repeatedly; in a process that torchrun started, take part.

    Raises ``ValueError`` for an interval that is none, and as
    ``training.refresh.pipeline``.
    """
    from srp4ctr.training.loop.distributed import joined, yield_to_serving
    from srp4ctr.training.refresh.pipeline import RefreshOptions, refresh
    from srp4ctr.training.refresh.stages import run_worker

    interval_s = seconds_of(plan.every) if plan.every else 0.0
    yield_to_serving(settings.training)

    def once() -> RefreshReport:
        with display.progress() as progress:
            options = RefreshOptions(
                promote=promoter(settings) if plan.promote else None,
                serving=serving_folder(settings),
                from_scratch=plan.from_scratch,
                force=plan.force,
                progress=progress,
                processes=processes,
            )
            parts = (settings.training, settings.features, settings.streams)
            return refresh(*parts, options)

    def turn() -> None:
        bundles_dir = Path(settings.training.bundles_dir)
        display.show(take_turn(once, bundles_dir, interval_s))

    with joined() as processes:
        if not processes.is_first:
            run_worker(settings.training, processes, plan.from_scratch)
            return
        if plan.every and processes.count > 1:
            raise ValueError("--every needs one process: repeat the torchrun command")
        with ended_by_sigterm():
            repeat(turn, interval_s, display.say) if plan.every else turn()


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
