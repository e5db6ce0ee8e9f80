"""A bundle → one server: load its steps alongside the old ones, check them, then switch.

The switch replaces the ensembles' configuration files and reloads only the ensembles: no
request is lost, and none is answered by a mixed pair. After any failure before or during
the switch the old pair still serves.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tritonclient.utils import InferenceServerException

from srp4ctr.client.channel import connect_in_control
from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate, failed, skipped
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, repository_writer
from srp4ctr.triton_repo.deployment.golden_ids import GoldenIds, stored_users
from srp4ctr.triton_repo.deployment.live_repository import (
    LOAD_TIMEOUT_S,
    Serving,
    locked,
    read_serving,
)
from srp4ctr.triton_repo.deployment.repository_writer import step_folders
from srp4ctr.triton_repo.deployment.validation import (
    LATENCY,
    check_version,
    golden_gate,
    latency_gate,
)

LOG = logging.getLogger(__name__)
_POLL_S = 0.02


class PromotionError(ArtifactError):
    """A bundle does not serve, or serves no more; says why, and what serves now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What a server serves after a bundle was to be promoted, and what was checked."""

    serving: Serving
    gates: tuple[Gate, ...] = ()
    """None where the bundle served already."""
    refusal: str = ""
    """Why the bundle does not serve; "" if it does."""


def plan_change(
    source: Path, version: str, config: TritonConfig, *, canary: bool = False
) -> tuple[Serving, Serving]:
    """Return what a server serves before and after ``version`` is promoted.

    Raises ``MistakeError`` where another bundle has this version, or nothing serves all
    users besides the canary.
    """
    repository = Path(config.repository).resolve()
    before = read_serving(repository)
    is_known = version in known_versions(repository, before)
    if is_known and not repository_writer.is_rendered_from(repository, source, version):
        raise MistakeError(
            f"{repository} serves another bundle named {version}: give a bundle a new "
            "version instead of changing it"
        )
    if canary and before.serving in (None, version):
        serves = f"{version} serves all" if before.serving else "nothing serves yet"
        raise MistakeError(f"{serves}: a canary serves alongside another bundle")
    if version == before.serving:
        return before, before
    if canary:
        share = config.canary_share
        return before, replace(before, canary=version, canary_share=share)
    return before, before.promoted(version)


def deploy(
    source: Path,
    config: TritonConfig,
    features: FeatureConfig,
    passed: Sequence[Gate],
    *,
    canary: bool = False,
) -> Promotion:
    """Let the server serve the bundle in folder ``source``, after the ``passed`` gates.

    It is refused, and the old pair still serves, where the server does not load it, or
    answers differently from training or much slower than before. Deploying what serves
    already changes nothing, or repairs what a killed change left. The files of what served
    before are kept: for ``restore``, until ``remove_unused``. Raises ``ArtifactError`` for
    a bundle that is damaged or of another schema, and ``OutageError`` where no server
    answers.
    """
    card = bundle.verify(source)
    version, repository = card.version, Path(config.repository).resolve()
    with locked(repository):
        before, after = plan_change(source, version, config, canary=canary)
        if after == before and live_repository.is_switched(repository, before):
            return Promotion(serving=before)
        if version not in known_versions(repository, before):
            repository_writer.render(source, card, config, features)
        return _switch(version, (before, after), config, features, passed)


def switch_back(config: TritonConfig) -> Serving:
    """Serve the previous bundle again, and return what serves then; files stay.

    Raises ``MistakeError`` where there is none, and ``PromotionError`` where the server
    does not load it.
    """
    repository = Path(config.repository).resolve()
    with locked(repository):
        before = read_serving(repository)
        if before.previous is None:
            which = f"before {before.serving}" if before.serving else "yet"
            raise MistakeError(f"nothing was served {which} in {repository}")
        after = before.promoted(before.previous)
        found = _switch(before.previous, (before, after), config)
    if found.refusal:
        raise PromotionError(found.refusal)
    return found.serving


def unload_canary(config: TritonConfig) -> Serving:
    """End the canary, and return what serves then; files stay."""
    repository = Path(config.repository).resolve()
    with locked(repository), connected(config) as client:
        before = read_serving(repository)
        if before.canary is None:
            raise MistakeError(f"there is no canary in {repository}")
        after = before.without_canary()
        live_repository.switch(client, repository, after)
        _unload(client, repository, keep=after.versions)
    return after


def restore(config: TritonConfig, wanted: Serving) -> None:
    """Serve exactly ``wanted`` again, also nothing; ``deploy`` kept its files.

    Files that it does not need stay until ``remove_unused``. All ensembles are loaded
    again: after a crash their files may be right, and what the server has loaded wrong.
    """
    repository = Path(config.repository).resolve()
    with locked(repository), connected(config) as client:
        for version in sorted(filter(None, wanted.versions)):
            _load(client, repository, version)
        checks = []
        if wanted.serving:
            name = model_names.RANK_CLICKS
            checks.append(partial(check_version, client, name, wanted.serving))
        live_repository.switch(client, repository, wanted, *checks)
        _unload(client, repository, keep=wanted.versions)


def remove_unused(config: TritonConfig) -> None:
    """Remove the files of every bundle that is neither served nor the previous one."""
    repository = Path(config.repository).resolve()
    with locked(repository):
        for folder in _steps_except(repository, read_serving(repository).versions):
            shutil.rmtree(folder, ignore_errors=True)


def known_versions(repository: Path, before: Serving) -> set[str | None]:
    """Return the versions whose steps may be loaded."""
    return before.versions | live_repository.live_versions(repository)


def _switch(
    version: str,
    states: tuple[Serving, Serving],
    config: TritonConfig,
    features: FeatureConfig | None = None,
    passed: Sequence[Gate] = (),
) -> Promotion:
    """Load and check the rendered steps of ``version``; switch from one state to the other.

    Without ``features``, as in a rollback, neither its latency nor its answers to ids are
    checked: it has served before, and a rollback needs no feature store.
    """
    repository = Path(config.repository).resolve()
    gates = list(passed)
    before, after = states
    name = next(n for n, each in after.ensembles.items() if each == version)
    with connected(config) as client, ExitStack() as storing:
        try:
            folders = _load(client, repository, version)
            gates.append(golden_gate(client, folders, version))
            checks = [partial(check_version, client, name, version)]
            if features is not None and gates[-1].passed:
                users = stored_users(client, folders, features, config.max_candidates)
                golden = storing.enter_context(users)
                gates += _gates_by_ids(golden, before.serving, version, config)
                checks.append(partial(golden.check, name))
            refusal = "; ".join(map(str, failed(gates)))
            if not refusal:
                live_repository.switch(client, repository, after, *checks)
        except (InferenceServerException, ValueError, OSError) as error:
            refusal = str(error) or repr(error)
        serving = before if refusal else after
        _unload(client, repository, keep=serving.versions)
    if refusal:
        return refused(version, before, gates, refusal)
    return Promotion(serving=after, gates=tuple(gates))


def _gates_by_ids(
    golden: GoldenIds, old: str | None, version: str, config: TritonConfig
) -> list[Gate]:
    """Return the gates of the steps of ``golden``, compared with the bundle ``old``."""
    gate, folders = golden.gate(), golden.folders
    if old is None:
        return [gate, skipped(LATENCY, "nothing served before")]
    of_old = step_folders(Path(config.repository).resolve(), old)
    pair = (old, of_old), (version, folders)
    costs = golden.native_costs(of_old) if gate.passed else []
    ratio = config.max_latency_ratio
    return [gate, latency_gate(golden.client, *pair, ratio, costs)]


def refused(version: str, before: Serving, gates: Sequence[Gate], why: str) -> Promotion:
    """Return the result of a refused promotion of ``version``: ``before`` still serves."""
    serves = before.serving or "nothing yet"
    refusal = f"{version} was not promoted: {why}; serving: {serves}"
    return Promotion(serving=before, gates=tuple(gates), refusal=refusal)


def _load(client: Any, repository: Path, version: str) -> list[Path]:
    """Load the steps of ``version``, and return their folders."""
    if not (folders := step_folders(repository, version)):
        raise ArtifactError(f"{version} is gone: promote the bundle again")
    for folder in folders:
        try:
            client.load_model(folder.name, client_timeout=LOAD_TIMEOUT_S)
        except InferenceServerException as error:
            if not repository_writer.remove_native(repository, version, folder):
                raise
            LOG.warning("rank_clicks is answered without the native step: %s", error)
    return step_folders(repository, version)


def _unload(client: Any, repository: Path, keep: set[str | None]) -> None:
    """Unload the steps of every version but those of ``keep``.

    Native steps end before the Python steps that their calls are handed to are unloaded.
    """
    names = [folder.name for folder in _steps_except(repository, keep)]
    native = {name for name in names if name.startswith(model_names.NATIVE_RANKER)}
    for part in (native, set(names) - native):
        for name in sorted(part & _in_states(client, "READY")):
            client.unload_model(name)
        until_s = time.monotonic() + LOAD_TIMEOUT_S
        while part & native & _in_states(client, "READY", "UNLOADING"):
            if time.monotonic() > until_s:
                LOG.warning("calls of %s do not end: they may fail", ", ".join(part))
                break
            time.sleep(_POLL_S)


def _in_states(client: Any, *states: str) -> set[str]:
    """Return the models in one of ``states``; one that is unloaded has none of them."""
    index = client.get_model_repository_index(as_json=True).get("models", [])
    return {model["name"] for model in index if model.get("state") in states}


def _steps_except(repository: Path, keep: set[str | None]) -> list[Path]:
    """Return the step folders of all versions but ``keep`` and what the ensembles name."""
    keep = keep | live_repository.live_versions(repository)
    return [
        folder
        for step in model_names.STEPS
        for folder in sorted(repository.glob(f"{step}_v*"))
        if folder.name.removeprefix(f"{step}_") not in keep
    ]


@contextmanager
def connected(config: TritonConfig) -> Iterator[Any]:
    """Yield a client that may control the server; ``OutageError`` if none answers."""
    with connect_in_control(config) as client:
        try:
            client.is_server_live(client_timeout=5.0)
        except InferenceServerException as error:
            raise OutageError(
                f"no Triton answers on {config.grpc} ({error.message()}): "
                "is the stack up (srp4ctr stack status), and does it need triton.tls?"
            ) from error
        try:
            yield client
        except InferenceServerException as error:
            message = f"Triton on {config.grpc} failed: {error.message()}"
            raise OutageError(message) from error
