"""Settings → a check of the feature store, and the promotion that waits for a good one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from srp4ctr.features.check_report import REPORT_FILE, FeatureCheck
from srp4ctr.features.gates import Gate, failed
from srp4ctr.features.json_files import write_json
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings


def checked(settings: Settings, sample: int = 200) -> FeatureCheck:
    """Compare the store with the raw log now, and leave the report for the monitor.

    Raises ``ValueError`` where no broker answers or the views are not registered.
    """
    from srp4ctr.features.check import check_features
    from srp4ctr.features.store import FeatureStoreSink  # Feast: 3 s
    from srp4ctr.streams.events import BEHAVIOR_EVENTS_TOPIC
    from srp4ctr.streams.topics import committed_offsets

    sink = FeatureStoreSink(settings.features)
    streams = settings.streams
    place = (streams.group_id, BEHAVIOR_EVENTS_TOPIC)
    committed = committed_offsets(settings.kafka, *place)  # before the rows are read
    check = check_features(settings.features, sink, streams, committed, sample)
    write_json(Path(settings.features.log_dir) / REPORT_FILE, check)
    return check


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
    from srp4ctr.training import reports  # no torch
    from srp4ctr.triton_repo import replicas
    from srp4ctr.triton_repo.promotion import PromotionError

    gates: tuple[Gate, ...] = ()
    check = partial(checked, settings)
    try:
        done = replicas.promote(
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
    from srp4ctr.triton_repo.promotion import PromotionError

    def try_it(folder: Path) -> tuple[Gate, ...]:
        try:
            return promote(settings, folder, "model refresh")
        except PromotionError as error:
            if not failed(error.gates):
                raise
            return error.gates

    return try_it


def serving_folder(settings: Settings) -> Path | None:
    """Return the folder of the bundle that serves; None before the first promotion."""
    from srp4ctr.triton_repo.live import read_serving

    serving = read_serving(Path(settings.triton.repository)).serving
    return Path(settings.training.bundles_dir) / serving if serving else None


def what_serves(settings: Settings) -> str:
    """Return the bundle that serves, and the canary beside it if there is one."""
    from srp4ctr.triton_repo.live import read_serving

    found = read_serving(Path(settings.triton.repository))
    beside = f", canary {found.canary}" if found.canary else ""
    return f"{found.serving or 'nothing'}{beside}"
