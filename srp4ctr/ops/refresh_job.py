"""Runs refreshes, or promotions of what others published, once or at an interval.

Each refresh writes its status for the monitor.

Torch is imported when a refresh begins.
"""

import logging
import re
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.features.bundles.gates import failed
from srp4ctr.ops.promotion_service import (
    bundle_folder,
    promote,
    serving_folder,
    share_serving,
)
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
    from srp4ctr.triton_repo.deployment.promotion import Promotion

LOG = logging.getLogger(__name__)
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EXPECTED = (Srp4ctrError, OSError)  # their message is enough: no traceback
_RETRY_S = 60.0
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
class PromotionPlan:
    """What to promote."""

    version: str = ""
    """"": the newest that passed its training's gates, unless it was promoted before."""
    canary: bool = False
    canary_share: float | None = None
    """None: ``triton.canary_share``."""
    accept_worse: bool = False
    """Also where a one-line rule ranks better."""
    every: str = ""
    """``1m``: repeat until a signal; "": once."""


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
    from srp4ctr.triton_repo.deployment.promotion import PromotionError

    if report.outcome is not RefreshOutcome.READY or settings.training.bundles_uri:
        return report
    clock = Clock(progress)
    with clock.step("promote"):
        found = promote(settings, report.folder, "model refresh")
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


def run_promotion(
    settings: Settings,
    plan: PromotionPlan,
    show: Callable[["Promotion | None"], None],
    say: Callable[[str], None],
    show_refused: Callable[["Promotion"], None] | None = None,
) -> None:
    """Promote a bundle and ``show`` it; None where none waits for it.

    Or repeatedly the newest that waits, until SIGTERM; then ``say`` gets the failures.
    Raises ``PromotionError`` where it was refused, after ``show_refused`` got it, else as
    ``promote``.
    """

    def turn() -> None:
        if plan.version:
            folder = bundle_folder(settings, plan.version)
            found: Promotion | None = promote(
                settings, folder, canary=plan.canary, accept_worse=plan.accept_worse
            )
        else:
            found = promote_new(settings, canary=plan.canary)
        _raise_refusal(found, show_refused)
        if found or not plan.every:
            show(found)

    settings = _with_canary_share(settings, plan)
    if plan.accept_worse and not plan.version:
        raise MistakeError(
            "--accept-worse needs the bundle's name: srp4ctr model promote VERSION"
            " --accept-worse"
        )
    if not plan.every:
        return turn()
    if plan.version:
        raise MistakeError("--every promotes what is new: leave the version out")
    with ended_by_sigterm():
        repeat(turn, seconds_of(plan.every), say, announce=False)


def _raise_refusal(
    found: "Promotion | None", show_refused: Callable[["Promotion"], None] | None
) -> None:
    from srp4ctr.triton_repo.deployment.promotion import PromotionError

    if found and found.refusal:
        if show_refused:
            show_refused(found)
        raise PromotionError(found.refusal)


def _with_canary_share(settings: Settings, plan: PromotionPlan) -> Settings:
    if plan.canary_share is None:
        return settings
    if not plan.canary or not 0.0 < plan.canary_share <= 1.0:
        raise MistakeError(
            f"--share {plan.canary_share:g}: a share of the users, more than 0 and at most "
            "1, for a canary: srp4ctr model promote v2 --canary --share 0.1"
        )
    triton = replace(settings.triton, canary_share=plan.canary_share)
    return settings.model_copy(update={"triton": triton})


def promote_new(settings: Settings, *, canary: bool = False) -> "Promotion | None":
    """Promote the newest bundle that waits for it; None where none does.

    It passed its training's gates, and no newer one was promoted. Raises as ``promote``,
    and as ``BundleStore`` where the object store is away.
    """
    from srp4ctr.features.bundles import bundle
    from srp4ctr.triton_repo.deployment.live_repository import read_serving
    from srp4ctr.triton_repo.model_names import SERVING_FILE

    bundles_dir = Path(settings.training.bundles_dir)
    if store := bundle_store.store_of(settings.training):
        store.update(SERVING_FILE)
        if read_serving(bundles_dir) != read_serving(Path(settings.triton.repository)):
            share_serving(settings)  # it was away after a promotion
    for folder in reversed(bundle.list_bundles(bundles_dir, bundle.CARD_FILE)):
        report = reports.read(folder)
        if report and report.outcome is RefreshOutcome.PROMOTED:
            return None
        if report and report.outcome is RefreshOutcome.READY:
            return promote(settings, bundle_folder(settings, folder.name), canary=canary)
    return None


def seconds_of(interval: str) -> float:
    """Return the seconds of ``30m``, ``1h`` or ``2d``; ``MistakeError`` otherwise."""
    found = re.fullmatch(r"([1-9][0-9]*)([smhd])", interval.strip())
    if not found:
        raise MistakeError(f"--every {interval}: write 30m, 1h or 2d")
    return int(found[1]) * _UNITS_S[found[2]]


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
