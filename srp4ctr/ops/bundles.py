"""Settings → the bundles and their folders, what serves, and descriptions of both."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srp4ctr.errors import MistakeError
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings
from srp4ctr.training.export import bundle_store

if TYPE_CHECKING:  # tritonclient: another extra
    from srp4ctr.triton_repo.deployment.live_repository import Serving


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
    bundles = bundle.list_bundles(bundles_dir, bundle.CARD_FILE)
    folders = {folder.name: folder for folder in bundles}
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


def publish_all(settings: Settings) -> list[str]:
    """Copy the bundles of ``bundles_dir`` into the object store; return their versions.

    For those of the time before there was one: a refresh publishes its own. Raises as
    ``BundleStore.publish``.
    """
    from srp4ctr.features.bundles import bundle

    if (store := bundle_store.store_of(settings.training)) is None:
        raise MistakeError("training.bundles_uri is not set: where to?")
    bundles = bundle.list_bundles(Path(settings.training.bundles_dir))
    with audit_log(settings).audited("model publish", store.uri) as audited:
        for folder in bundles:
            store.publish(folder)
        audited.after = ", ".join(folder.name for folder in bundles)
    return [folder.name for folder in bundles]
