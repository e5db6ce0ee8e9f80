"""Settings → bundles and what serves: checks, promotion, rollback, and descriptions."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srp4ctr.atomic_files import write_json
from srp4ctr.errors import MistakeError, Srp4ctrError
from srp4ctr.features.bundles.gates import Gate, failed
from srp4ctr.features.consistency.report import REPORT_FILE, FeatureCheck
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings
from srp4ctr.training.export import bundle_store

if TYPE_CHECKING:  # torch: 3 s; tritonclient: another extra
    from srp4ctr.training.skew.check import ServedCheck
    from srp4ctr.triton_repo.deployment.live_repository import Serving
    from srp4ctr.triton_repo.deployment.promotion import Promotion
    from srp4ctr.triton_repo.deployment.reconcile import Reconciliation

_ACCEPTED = "promoted with --accept-worse"
LOG = logging.getLogger(__name__)


def checked(settings: Settings, sample: int = 200) -> FeatureCheck:
    """Compare the store with the raw log now, and write the report for the monitor.

    Raises ``OutageError`` where no broker answers.
    """
    from srp4ctr.features.consistency.check import check_features
    from srp4ctr.features.online.store import FeatureStoreSink
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
    """Compare served requests with training's view, and write the report for the monitor.

    ``requests`` are files of ``triton.served_log.folder``.
    """
    from srp4ctr.features.bundles import request_log
    from srp4ctr.training.loop.distributed import cpu_threads
    from srp4ctr.training.refresh.reports import SERVED_CHECK_FILE, ServedReport
    from srp4ctr.training.skew.check import check_served

    with cpu_threads(settings.training.threads):
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


def store_gate(check: FeatureCheck, max_wrong: float) -> Gate:
    """Return whether at most a share of ``max_wrong`` of the store's rows is wrong.

    A model is evaluated on the log's features: it would serve on others.
    """
    return Gate(
        gate="skew",
        passed=check.wrong_share <= max_wrong,
        value=check.wrong_share,
        limit=max_wrong,
        note=f"{check.wrong_rows} of {check.rows} rows of the feature store are not what "
        f"the raw log says ({check.edits} edits in {check.wrong_sequences} sequences; "
        f"{check.wrong_counters} counters, by up to {check.largest_difference:.3g} events),"
        f" and triton.max_wrong_features is {max_wrong:g}: `srp4ctr features check` shows "
        "them, `srp4ctr stream rebuild` rebuilds them",
    )


def promote(
    settings: Settings,
    folder: Path,
    command: str = "model promote",
    *,
    canary: bool = False,
    accept_worse: bool = False,
) -> "Promotion":
    """Promote the bundle in ``folder``, and add its gates to the bundle's report.

    One that is worse than a one-line rule is refused, unless ``accept_worse``. Trainers
    find both in the object store. The audit log names ``command`` and the flags. Raises
    ``ArtifactError`` for a damaged bundle, and ``OutageError`` where no server answers.
    """
    from srp4ctr.training.refresh import reports  # no torch

    flags = {" --canary": canary, " --accept-worse": accept_worse}
    named = command + "".join(flag for flag, is_set in flags.items() if is_set)
    serves = partial(what_serves, settings)
    with audit_log(settings).audited(named, folder.name, serves) as audited:
        found = _promote(settings, folder, canary, accept_worse)
        audited.refusal = found.refusal
    report = reports.read(folder)
    is_decided = failed(found.gates) or not found.refusal
    # One that is ready and serves was promoted by a process that did not come to say so.
    is_new = found.gates or (report and report.outcome is reports.RefreshOutcome.READY)
    if report is not None and is_new and is_decided:
        if accept_worse and not found.refusal:
            report = replace(report, notes=(*report.notes, _ACCEPTED))
        reports.write(reports.with_promotion(report, found.gates))
    share_serving(settings, *(f"{folder.name}/{name}" for name in bundle_store.REPORTS))
    return found


def share_serving(settings: Settings, *names: str) -> None:
    """Write into the object store, if there is one, what serves, and the files ``names``.

    Without it only trainers miss them: what was done to Triton stays done.
    """
    from srp4ctr.triton_repo.deployment.live_repository import read_serving
    from srp4ctr.triton_repo.model_names import SERVING_FILE

    if not settings.training.bundles_uri:
        return
    try:
        store = bundle_store.BundleStore(settings.training)
        serving = read_serving(Path(settings.triton.repository))
        write_json(store.folder / SERVING_FILE, serving)
        store.send(SERVING_FILE, *names)
    except Srp4ctrError as error:
        LOG.warning("trainers do not know yet what serves: %s", error)


def _promote(
    settings: Settings, folder: Path, canary: bool, accept_worse: bool
) -> "Promotion":
    """Check the feature store if a server would change, then promote."""
    from srp4ctr.features.bundles import bundle, rule_results
    from srp4ctr.triton_repo.deployment import promotion, reconcile, rollout

    triton = settings.triton
    # Before the store is checked, which takes long; promotion verifies what it copies.
    card = bundle.verify(folder)
    version = card.version
    changes = [
        promotion.change(folder, version, server, canary=canary)
        for server in triton.servers()
    ]
    serves_already = all(before == after for before, after in changes)
    if serves_already and reconcile.is_settled(triton):
        return promotion.Promotion(serving=changes[0][0])
    lost = [each for each in failed(card.gates) if each.gate == rule_results.GATE]
    if lost and not accept_worse:
        before, why = changes[0][0], "; ".join(map(str, lost))
        return promotion.refused(version, before, (), why)
    gate = store_gate(checked(settings), triton.max_wrong_features)
    return rollout.promote(folder, triton, settings.features, gate, canary=canary)


def roll_back(settings: Settings, *, canary: bool = False) -> "Serving":
    """Serve the previous bundle again, or end the ``canary``; return what serves now."""
    from srp4ctr.triton_repo.deployment import rollout

    undo = rollout.end_canary if canary else rollout.rollback
    command = "model rollback --canary" if canary else "model rollback"
    with audit_log(settings).audited(command, state=partial(what_serves, settings)):
        serving = undo(settings.triton)
    share_serving(settings)
    return serving


def reconcile(settings: Settings) -> "Reconciliation":
    """Let all servers serve one version, after a crash or a change by hand.

    Raises as ``triton_repo.deployment.reconcile.reconcile``.
    """
    from srp4ctr.triton_repo.deployment import reconcile

    bundles = partial(bundle_store.bundle_folder, settings.training)
    serves = partial(what_serves, settings)
    with audit_log(settings).audited("model reconcile", state=serves) as audited:
        found = reconcile.reconcile(settings.triton, settings.features, bundles)
        audited.subject = found.command
    share_serving(settings)
    return found


def publish_all(settings: Settings) -> list[str]:
    """Copy the bundles of ``bundles_dir`` into the object store; return their versions.

    For those of the time before there was one: a refresh publishes its own. Raises as
    ``BundleStore.publish``.
    """
    from srp4ctr.features.bundles import bundle

    if (store := bundle_store.store_of(settings.training)) is None:
        raise MistakeError("training.bundles_uri is not set: where to?")
    found = bundle.list_bundles(Path(settings.training.bundles_dir))
    with audit_log(settings).audited("model publish", store.uri) as audited:
        for folder in found:
            store.publish(folder)
        audited.after = ", ".join(folder.name for folder in found)
    return [folder.name for folder in found]


def serving_folder(settings: Settings) -> Path | None:
    """Return the folder of the bundle that serves; None before the first promotion."""
    serving = serving_now(settings).serving
    return bundle_store.bundle_folder(settings.training, serving) if serving else None


def serving_now(settings: Settings) -> "Serving":
    """Return what serves, by the live repository, or as the object store has it.

    The latter where the repository is on another machine.
    """
    from srp4ctr.triton_repo.deployment.live_repository import read_serving
    from srp4ctr.triton_repo.model_names import SERVING_FILE

    repository = Path(settings.triton.repository)
    is_elsewhere = not (repository / SERVING_FILE).is_file()
    if settings.training.bundles_uri and is_elsewhere:
        repository = Path(settings.training.bundles_dir)
    return read_serving(repository)


def what_serves(settings: Settings) -> str:
    """Return the bundle that serves, and the canary if there is one."""
    found = serving_now(settings)
    canary = f", canary {found.canary} ({found.canary_share:.4g})" if found.canary else ""
    return f"{found.serving or 'nothing'}{canary}"


def bundle_folder(settings: Settings, version: str) -> Path:
    """Return the folder of bundle ``version``; ``MistakeError`` where there is none."""
    from srp4ctr.features.bundles import bundle

    folder = bundle_store.bundle_folder(settings.training, version)
    if not (folder / bundle.CARD_FILE).is_file():
        raise MistakeError(f"there is no bundle {version}: srp4ctr model list shows them")
    return folder


def describe_bundles(settings: Settings, *versions: str) -> list[dict[str, Any]]:
    """Return card, report and role of bundles ``versions``, else of each, oldest first.

    ``MistakeError`` where one does not exist.
    """
    from srp4ctr.features.bundles import bundle
    from srp4ctr.triton_repo.model_names import SERVING_FILE

    if store := bundle_store.store_of(settings.training):
        store.update(SERVING_FILE)
    serving = serving_now(settings)
    roles = {
        serving.previous: "previous",
        serving.canary: "canary",
        serving.serving: "serving",
    }
    bundles_dir = Path(settings.training.bundles_dir)
    found = bundle.list_bundles(bundles_dir, bundle.CARD_FILE)
    folders = {folder.name: folder for folder in found}
    if unknown := [version for version in versions if version not in folders]:
        raise MistakeError(
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
    more: dict[str, Any] = {"outcome": "", "notes": (), "seconds": {}, "rules": ()}
    if report is not None:
        more = {name: getattr(report, name) for name in (*more, "gates")}
    found = asdict(card) | more
    found["rules"] = [asdict(rule) for rule in more["rules"]]
    found["gates"] = [asdict(gate) for gate in more.get("gates", card.gates)]
    return found
