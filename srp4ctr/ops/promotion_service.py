"""Settings → bundles and what serves: checks, promotion, rollback, and the list of all."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srp4ctr.atomic_files import write_json
from srp4ctr.features.bundles.gates import Gate, failed
from srp4ctr.features.consistency.report import REPORT_FILE, FeatureCheck
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings

if TYPE_CHECKING:  # torch: 3 s
    from srp4ctr.training.skew.check import ServedCheck


def checked(settings: Settings, sample: int = 200) -> FeatureCheck:
    """Compare the store with the raw log now, and leave the report for the monitor.

    Raises ``ValueError`` where no broker answers or the views are not registered.
    """
    from srp4ctr.features.consistency.check import check_features
    from srp4ctr.features.online.store import FeatureStoreSink  # Feast: 3 s
    from srp4ctr.streams.broker.topics import committed_offsets
    from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC

    sink = FeatureStoreSink(settings.features)
    streams = settings.streams
    place = (streams.group_id, BEHAVIOR_EVENTS_TOPIC)
    committed = committed_offsets(settings.kafka, *place)  # before the rows are read
    check = check_features(settings.features, sink, streams, committed, sample)
    write_json(Path(settings.features.log_dir) / REPORT_FILE, check)
    return check


def checked_served(settings: Settings, requests: Sequence[Path]) -> "ServedCheck":
    """Compare served requests with training's view, and leave the report for the monitor.

    ``requests`` are files of ``triton.served_log.folder``.
    """
    from srp4ctr.features.bundles import request_log
    from srp4ctr.training.refresh.reports import SERVED_CHECK_FILE, ServedReport
    from srp4ctr.training.skew.check import check_served

    found = check_served(
        [request_log.read(path) for path in requests],
        settings.training,
        settings.features,
        settings.streams,
    )
    report = ServedReport(
        checked_at_ms=round(time.time() * 1000),
        requests=found.requests,
        mean_shift=found.shift_of,
    )
    write_json(Path(settings.features.log_dir) / SERVED_CHECK_FILE, report)
    return found


def promote(
    settings: Settings,
    folder: Path,
    command: str = "model promote",
    *,
    canary: bool = False,
) -> tuple[Gate, ...]:
    """Serve the bundle in ``folder``, add to its report, and return what was checked.

    The audit log names ``command``. Raises ``PromotionError`` where it does not serve then.
    """
    serves = partial(what_serves, settings)
    named = f"{command} --canary" if canary else command
    with audit_log(settings).recorded(named, folder.name, serves):
        return _promote(settings, folder, canary)


def _promote(settings: Settings, folder: Path, canary: bool) -> tuple[Gate, ...]:
    from srp4ctr.training.refresh import reports  # no torch
    from srp4ctr.triton_repo.deployment import rollout
    from srp4ctr.triton_repo.deployment.promotion import PromotionError

    gates: tuple[Gate, ...] = ()
    check = partial(checked, settings)
    try:
        done = rollout.promote(
            folder, settings.triton, settings.features, check, canary=canary
        )
        gates = done.gates
    except PromotionError as error:
        gates = error.gates
        raise
    finally:
        report = reports.read(folder)
        if report is not None and gates:
            reports.write(reports.with_promotion(report, gates))
    return gates


def promoter(settings: Settings) -> Callable[[Path], tuple[Gate, ...]]:
    """Return what serves the bundle in a folder: a refresh hands it the folder.

    A gate that fails is an answer; only what could not be tried is an error.
    """
    from srp4ctr.triton_repo.deployment.promotion import PromotionError

    def try_it(folder: Path) -> tuple[Gate, ...]:
        try:
            return promote(settings, folder, "model refresh")
        except PromotionError as error:
            if not failed(error.gates):
                raise
            return error.gates

    return try_it


def roll_back(settings: Settings, *, canary: bool = False) -> str | None:
    """Serve the previous bundle again, or end the ``canary``; return what serves now."""
    from srp4ctr.triton_repo.deployment.rollout import end_canary, rollback

    undo = end_canary if canary else rollback
    command = "model rollback --canary" if canary else "model rollback"
    with audit_log(settings).recorded(command, state=partial(what_serves, settings)):
        return undo(settings.triton).serving


def serving_folder(settings: Settings) -> Path | None:
    """Return the folder of the bundle that serves; None before the first promotion."""
    from srp4ctr.triton_repo.deployment.live_repository import read_serving

    serving = read_serving(Path(settings.triton.repository)).serving
    return Path(settings.training.bundles_dir) / serving if serving else None


def what_serves(settings: Settings) -> str:
    """Return the bundle that serves, and the canary beside it if there is one."""
    from srp4ctr.triton_repo.deployment.live_repository import read_serving

    found = read_serving(Path(settings.triton.repository))
    beside = f", canary {found.canary}" if found.canary else ""
    return f"{found.serving or 'nothing'}{beside}"


def bundle_folder(settings: Settings, version: str) -> Path:
    """Return the folder of bundle ``version``; ``ValueError`` where there is none."""
    folder = Path(settings.training.bundles_dir) / version
    if not folder.is_dir():
        raise ValueError(f"there is no bundle {version}: srp4ctr model list shows them")
    return folder


def describe_bundles(settings: Settings, *versions: str) -> list[dict[str, Any]]:
    """Return all that is known of bundles ``versions``, else of each, oldest first.

    ``ValueError`` where one does not exist.
    """
    from srp4ctr.features.bundles import bundle
    from srp4ctr.triton_repo.deployment.live_repository import read_serving

    serving = read_serving(Path(settings.triton.repository))
    roles = {
        serving.previous: "previous",
        serving.canary: "canary",
        serving.serving: "serving",
    }
    bundles_dir = Path(settings.training.bundles_dir)
    folders = {folder.name: folder for folder in bundle.list_bundles(bundles_dir)}
    if unknown := [version for version in versions if version not in folders]:
        raise ValueError(
            f"there is no bundle {', '.join(unknown)}: srp4ctr model list shows them"
        )
    return [
        _described(folders[version]) | {"role": roles.get(version, "")}
        for version in versions or folders
    ]


def _described(folder: Path) -> dict[str, Any]:
    from srp4ctr.features.bundles import bundle
    from srp4ctr.training.refresh import reports  # no torch

    card = bundle.read(folder)
    report = reports.read(folder)
    more: dict[str, Any] = {"outcome": "", "notes": (), "seconds": {}}
    if report is not None:
        more = {name: getattr(report, name) for name in (*more, "gates")}
    found = asdict(card) | more
    found["gates"] = [asdict(gate) for gate in more.get("gates", card.gates)]
    return found
