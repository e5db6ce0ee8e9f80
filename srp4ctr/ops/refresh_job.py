"""Runs refreshes, once or at an interval, and promotes the bundles that are ready.

Each refresh writes its status for the monitor. Torch is imported when a refresh begins.
"""

import logging
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.bundles.gates import failed
from srp4ctr.ops.bundles import serving_folder
from srp4ctr.ops.promotion_service import check_and_promote
from srp4ctr.ops.repeat import repeat, seconds_of
from srp4ctr.processes import ended_by_sigterm, is_ending, is_interrupted
from srp4ctr.settings import Settings
from srp4ctr.training.export import bundle_store
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import (
    STATUS_FILE,
    RefreshOutcome,
    RefreshReport,
    RefreshStatus,
)

if TYPE_CHECKING:  # torch: 3 s; tritonclient: another extra
    from srp4ctr.training.loop.distributed import Processes
    from srp4ctr.training.loop.progress import ProgressListener

LOG = logging.getLogger(__name__)
_ENDED = 128 + signal.SIGTERM
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
    """How refreshes are shown to a person."""

    progress: Callable[[str], AbstractContextManager["ProgressListener"]]
    """Called and entered for each refresh, with what would make a long one shorter."""
    show: Callable[[RefreshReport], None]
    say: Callable[[str], None]


def run(settings: Settings, plan: RefreshPlan, display: Display) -> RefreshReport | None:
    """Refresh once or repeatedly; in a process that torchrun started, join its group.

    Returns the report of one refresh, None in a worker process. Raises ``MistakeError`` for
    an interval that is none, and as ``training.refresh.pipeline``.
    """
    from srp4ctr.training.loop.distributed import joined, yield_to_serving
    from srp4ctr.training.refresh.stages import run_worker

    interval_s = seconds_of(plan.every) if plan.every else 0.0
    yield_to_serving(settings.training)

    def turn() -> RefreshReport:
        once = partial(_refresh, settings, plan, display, processes)
        bundles_dir = Path(settings.training.bundles_dir)
        try:
            report = refresh_and_record(once, bundles_dir, interval_s)
        finally:
            if store := bundle_store.store_of(settings.training):
                _send_status(store)
        display.show(report)
        return report

    with joined() as processes:
        if not processes.is_first:
            run_worker(settings.training, processes, plan.from_scratch)
            return None
        if plan.every and processes.count > 1:
            raise MistakeError("--every needs one process: repeat the torchrun command")
        try:
            with ended_by_sigterm(0 if plan.every else _ENDED):
                return repeat(turn, interval_s, display.say) if plan.every else turn()
        except SystemExit:
            display.say("ended by SIGTERM: the same command goes on where this one was")
            raise


def _refresh(
    settings: Settings, plan: RefreshPlan, display: Display, processes: "Processes"
) -> RefreshReport:
    """Refresh once; with an object store, from what is there and into it."""
    from srp4ctr.ops.published_log import wait_until_logged
    from srp4ctr.training.loop.distributed import device_of
    from srp4ctr.training.loop.progress import ways_to_shorten
    from srp4ctr.training.refresh.pipeline import RefreshOptions, refreshed
    from srp4ctr.triton_repo.model_names import SERVING_FILE

    if store := bundle_store.store_of(settings.training):
        store.synchronize(SERVING_FILE)
    hint = ways_to_shorten(settings.training, device_of(settings.training.device).type)
    with display.progress(hint) as progress:
        late = wait_until_logged(settings, progress)
        options = RefreshOptions(
            for_promotion=plan.promote,
            serving=serving_folder(settings),
            from_scratch=plan.from_scratch,
            force=plan.force,
            progress=progress,
            processes=processes,
            notes=(late,) if late else (),
        )
        parts = (settings.training, settings.features, settings.streams)
        with refreshed(*parts, options) as report:
            report = serve_if_ready(settings, report, progress)
    if store:
        store.publish(report.folder)
    return report


def serve_if_ready(
    settings: Settings, report: RefreshReport, progress: "ProgressListener"
) -> RefreshReport:
    """Promote the bundle of a refresh if it is ready; write and return its report.

    Not with an object store: there ``model promote --every`` promotes it. Raises
    ``PromotionError`` where the bundle passed its gates and still does not serve.
    """
    from srp4ctr.training.loop.progress import Clock
    from srp4ctr.triton_repo.deployment.one_server import PromotionError

    if report.outcome is not RefreshOutcome.READY or settings.training.bundles_uri:
        return report
    clock = Clock(progress)
    with clock.step("promote"):
        found = check_and_promote(settings, report.folder, "model refresh")
        if found.refusal and not failed(found.gates):
            raise PromotionError(found.refusal)
    report = reports.with_promotion(report, found.gates)
    report = replace(report, seconds={**report.seconds, **clock.seconds})
    reports.write(report)
    return report


def _send_status(store: bundle_store.BundleStore) -> None:
    try:
        store.send(STATUS_FILE)
    except OutageError as error:  # not what this refresh ended with
        LOG.warning("the monitor does not know how the refresh ended: %s", error)


def refresh_and_record(
    refresh: Refresh, bundles_dir: Path, interval_s: float = 0.0
) -> RefreshReport:
    """Return what ``refresh`` returns or raises, and write its status for the monitor."""
    began, file = time.time(), bundles_dir / STATUS_FILE
    before = read_json(file, RefreshStatus)
    found: dict[str, Any] = {
        "error": "stopped",  # by a signal, if by no exception
        "last_success_ms": before.last_success_ms if before else 0,
    }
    try:
        report = refresh()
        found |= {
            "error": "",
            "last_success_ms": _now_ms(),
            "version": report.version,
            "outcome": report.outcome.value,
            "gates": {g.gate: g.passed for g in report.gates if g.passed is not None},
        }
    except Exception as failure:
        if not (is_ending() or is_interrupted()):
            found["error"] = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        found |= {"ended_at_ms": _now_ms(), "seconds": time.time() - began}
        write_json(file, RefreshStatus(interval_s=interval_s, **found))
    return report


def _now_ms() -> int:
    return round(time.time() * 1000)
