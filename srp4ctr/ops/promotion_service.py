"""Settings → promotion, rollback and repair of what serves, checked and on record.

A promotion: choose the bundle, check what needs no server, promote it on all servers, then
write it to the audit log, the bundle's report and the object store.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from srp4ctr.atomic_files import write_json
from srp4ctr.errors import MistakeError, Srp4ctrError
from srp4ctr.features.bundles.gates import Gate, failed
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.ops.audit import audit_log
from srp4ctr.ops.bundles import bundle_folder, what_serves
from srp4ctr.ops.feature_store import compare_store
from srp4ctr.ops.repeat import repeat, seconds_of
from srp4ctr.processes import ended_by_sigterm
from srp4ctr.settings import Settings
from srp4ctr.training.export import bundle_store
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import RefreshOutcome

if TYPE_CHECKING:  # tritonclient: another extra
    from srp4ctr.triton_repo.deployment.live_repository import Serving
    from srp4ctr.triton_repo.deployment.one_server import Promotion
    from srp4ctr.triton_repo.deployment.reconcile import Reconciliation

LOG = logging.getLogger(__name__)
_ACCEPTED = "promoted with --accept-worse"


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

    def __post_init__(self) -> None:
        share = self.canary_share
        if share is not None and not (self.canary and 0.0 < share <= 1.0):
            raise MistakeError(
                f"--share {share:g}: a share of the users, more than 0 and at most 1, for "
                "a canary: srp4ctr model promote v2 --canary --share 0.1"
            )
        if self.accept_worse and not self.version:
            raise MistakeError(
                "--accept-worse needs the bundle's name: srp4ctr model promote VERSION"
                " --accept-worse"
            )
        if self.every and self.version:
            raise MistakeError("--every promotes what is new: leave the version out")


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
    ``check_and_promote`` and ``newest_ready``.
    """
    from srp4ctr.triton_repo.deployment.one_server import PromotionError

    if plan.canary_share is not None:
        triton = replace(settings.triton, canary_share=plan.canary_share)
        settings = settings.model_copy(update={"triton": triton})

    def turn() -> None:
        named = bundle_folder(settings, plan.version) if plan.version else None
        folder = named or newest_ready(settings)
        if folder is None:
            return None if plan.every else show(None)
        found = check_and_promote(
            settings, folder, canary=plan.canary, accept_worse=plan.accept_worse
        )
        if found.refusal:
            if show_refused:
                show_refused(found)
            raise PromotionError(found.refusal)
        show(found)

    if not plan.every:
        return turn()
    with ended_by_sigterm():
        repeat(turn, seconds_of(plan.every), say, announce=False)


def newest_ready(settings: Settings) -> Path | None:
    """Return the folder of the newest bundle that waits for its promotion, if one does.

    It passed its training's gates, and no newer one was promoted. Also sends what serves to
    an object store that was away after the last promotion. Raises as ``BundleStore`` where
    it is away now.
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
            return bundle_folder(settings, folder.name)
    return None


def check_and_promote(
    settings: Settings,
    folder: Path,
    command: str = "model promote",
    *,
    canary: bool = False,
    accept_worse: bool = False,
) -> "Promotion":
    """Check and promote the bundle in ``folder``; record it for operators and trainers.

    It is refused where the feature store differs from the raw log, or where it is worse
    than a one-line rule, unless ``accept_worse``. Its report gets the gates, and the audit
    log an entry that names ``command`` and the flags; trainers find what serves in the
    object store. Raises ``ArtifactError`` for a damaged bundle, and ``OutageError`` where
    no server answers.
    """
    from srp4ctr.triton_repo.deployment import promotion

    flags = {" --canary": canary, " --accept-worse": accept_worse}
    named = command + "".join(flag for flag, is_set in flags.items() if is_set)
    serves = partial(what_serves, settings)
    with audit_log(settings).audited(named, folder.name, serves) as audited:
        found = _decided_already(settings, folder, canary, accept_worse)
        if found is None:
            triton, features = settings.triton, settings.features
            gate = store_gate(compare_store(settings), triton.max_wrong_features)
            found = promotion.promote(folder, triton, features, gate, canary=canary)
        audited.refusal = found.refusal
    _add_gates(folder, found, accept_worse)
    share_serving(settings, *(f"{folder.name}/{name}" for name in bundle_store.REPORTS))
    return found


def _decided_already(
    settings: Settings, folder: Path, canary: bool, accept_worse: bool
) -> "Promotion | None":
    """Return the result that needs no server: the bundle serves, or a rule beat it.

    None where servers would change: only then is the feature store checked, which takes
    long. Raises as ``check_and_promote``.
    """
    from srp4ctr.features.bundles import bundle, rule_results
    from srp4ctr.triton_repo.deployment import one_server, reconcile

    card = bundle.verify(folder)
    changes = [
        one_server.plan_change(folder, card.version, server, canary=canary)
        for server in settings.triton.servers()
    ]
    serving = changes[0][0]
    serves_already = all(before == after for before, after in changes)
    if serves_already and reconcile.is_settled(settings.triton):
        return one_server.Promotion(serving=serving)
    lost = [each for each in failed(card.gates) if each.gate == rule_results.GATE]
    if lost and not accept_worse:
        why = "; ".join(map(str, lost))
        return one_server.refused(card.version, serving, (), why)
    return None


def _add_gates(folder: Path, found: "Promotion", accept_worse: bool) -> None:
    """Add the gates of a promotion to the report in ``folder``, if it was decided."""
    report = reports.read(folder)
    is_decided = failed(found.gates) or not found.refusal
    # One that is ready and serves was promoted by a process that did not come to say so.
    is_new = found.gates or (report and report.outcome is RefreshOutcome.READY)
    if report is not None and is_new and is_decided:
        if accept_worse and not found.refusal:
            report = replace(report, notes=(*report.notes, _ACCEPTED))
        reports.write(reports.with_promotion(report, found.gates))


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


def roll_back(settings: Settings, *, canary: bool = False) -> "Serving":
    """Serve the previous bundle again, or end the ``canary``; return what serves now."""
    from srp4ctr.triton_repo.deployment import promotion

    undo = promotion.end_canary if canary else promotion.rollback
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
