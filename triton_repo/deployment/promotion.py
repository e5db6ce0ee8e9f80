"""Bundle → serving: load the new steps beside the old ones, prove them, then switch.

The switch replaces the ensembles' configuration files and reloads the ensembles alone:
no request is lost, and none is answered by a mixed pair. Whatever fails before or during
it leaves the old pair serving.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tritonclient.utils import InferenceServerException

from srp4ctr.client.channel import connect_in_control
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate, failed, skipped
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, repository_writer
from srp4ctr.triton_repo.deployment.live_repository import (
    LOAD_TIMEOUT_S,
    Serving,
    locked,
    read_serving,
)
from srp4ctr.triton_repo.deployment.validation import (
    LATENCY,
    check_version,
    golden_gate,
    latency_gate,
)


class PromotionError(RuntimeError):
    """A bundle was not promoted or rolled back; says why, and what serves now."""

    def __init__(self, message: str, gates: Sequence[Gate] = ()) -> None:
        super().__init__(message)
        self.gates = tuple(gates)
        """What was checked; none of them failed where the server did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What serves after a promotion, and what was checked on the way."""

    serving: Serving
    gates: tuple[Gate, ...] = ()
    """None where the bundle served already."""


def promote(
    source: Path,
    config: TritonConfig,
    features: FeatureConfig,
    check: Callable[[], FeatureCheck],
    *,
    canary: bool = False,
) -> Promotion:
    """Serve the bundle in folder ``source``, to all or as ``rank_clicks_canary`` alone.

    Raises ValueError for a bundle that is damaged or of another schema, and
    ``PromotionError`` where ``check`` finds the feature store wrong, or where the server
    refuses the bundle, answers differently from training or much slower than before: then
    the old pair still serves. Promoting what serves already changes nothing.
    """
    card = bundle.verify(source)
    version, repository = card.version, Path(config.repository).resolve()
    with locked(repository):
        before = read_serving(repository)
        known = before.versions | live_repository.live_versions(repository)
        if version in known:
            _check_same(repository, source, version)
        after = _as_canary(before, version) if canary else before.promoted(version)
        if version == before.serving or after == before:
            return Promotion(serving=before)
        gates = [_store_gate(check(), config)]
        if failed(gates):
            raise _refusal(version, before, gates)
        if version not in known:
            repository_writer.render(source, card, config, features)
        _switch(version, (before, after), config, gates)
        return Promotion(serving=after, gates=tuple(gates))


def rollback(config: TritonConfig) -> Serving:
    """Serve the previous bundle again, and return what serves then."""
    repository = Path(config.repository).resolve()
    with locked(repository):
        before = read_serving(repository)
        if before.previous is None:
            raise ValueError(f"nothing was served before {before.serving} in {repository}")
        after = before.promoted(before.previous)
        _switch(before.previous, (before, after), config)
        return after


def end_canary(config: TritonConfig) -> Serving:
    """Answer as ``rank_clicks_canary`` no more, and return what serves then."""
    repository = Path(config.repository).resolve()
    with locked(repository), connected(config) as client:
        before = read_serving(repository)
        if before.canary is None:
            raise ValueError(f"there is no canary in {repository}")
        after = replace(before, canary=None)
        live_repository.move(client, repository, after, prove=lambda: None)
        _unload(client, repository, keep=after.versions)
    _remove_folders(repository, keep=after.versions)
    return after


def _as_canary(before: Serving, version: str) -> Serving:
    if before.serving in (None, version):
        serves = f"{version} serves all" if before.serving else "nothing serves yet"
        raise ValueError(f"{serves}: a canary stands beside another bundle")
    return replace(before, canary=version)


def _switch(
    version: str,
    states: tuple[Serving, Serving],
    config: TritonConfig,
    gates: list[Gate] | None = None,
) -> None:
    """Load and prove the rendered steps of ``version``; move from one state to the other.

    What is proved is added to ``gates``; without, as in a rollback, speed is no matter.
    """
    repository = Path(config.repository).resolve()
    proved = [] if gates is None else gates
    before, after = states
    with connected(config) as client:
        try:
            folders = repository_writer.step_folders(repository, version)
            if not folders:
                raise ValueError(f"{version} is gone: promote the bundle again")
            for folder in folders:
                client.load_model(folder.name, client_timeout=LOAD_TIMEOUT_S)
            proved.append(golden_gate(client, folders, version))
            if gates is not None:
                proved.append(_latency_gate(client, (before, version), config))
            for gate in failed(proved):
                raise ValueError(str(gate))
            moved = [n for n, each in after.ensembles.items() if each == version]
            answers = partial(check_version, client, moved[0], version)
            live_repository.move(client, repository, after, prove=answers)
        except (InferenceServerException, ValueError, OSError) as error:
            _unload(client, repository, keep=before.versions)
            serves = before.serving or "nothing yet"
            raise PromotionError(
                f"{version} was not promoted: {error}; serving: {serves}", proved
            ) from error
        _unload(client, repository, keep=after.versions)
    _remove_folders(repository, keep=after.versions)


def _unload(client: Any, repository: Path, keep: set[str | None]) -> None:
    """Unload the steps of every version but those of ``keep``."""
    index = client.get_model_repository_index(as_json=True).get("models", [])
    loaded = {model["name"] for model in index if model.get("state") == "READY"}
    for folder in _steps_except(repository, keep):
        if folder.name in loaded:
            client.unload_model(folder.name)


def _remove_folders(repository: Path, keep: set[str | None]) -> None:
    for folder in _steps_except(repository, keep):
        shutil.rmtree(folder, ignore_errors=True)


def _steps_except(repository: Path, keep: set[str | None]) -> list[Path]:
    """Return the step folders of all versions but ``keep`` and what the ensembles name."""
    keep = keep | live_repository.live_versions(repository)
    return [
        folder
        for step in model_names.STEPS
        for folder in sorted(repository.glob(f"{step}_v*"))
        if folder.name.removeprefix(f"{step}_") not in keep
    ]


def _check_same(repository: Path, source: Path, version: str) -> None:
    """Raise ValueError where another bundle of the same version is live."""
    if not repository_writer.is_rendered_from(repository, source, version):
        raise ValueError(
            f"{repository} serves another bundle named {version}: give a bundle a new "
            "version instead of changing it"
        )


def _store_gate(check: FeatureCheck, config: TritonConfig) -> Gate:
    """Hold the share of the store's rows that are not what the log says to its limit.

    A model is judged on the log's features: it would answer from others.
    """
    return Gate(
        gate="skew",
        passed=check.wrong_share <= config.max_wrong_features,
        value=check.wrong_share,
        limit=config.max_wrong_features,
        note=f"{check.wrong_rows} of {check.rows} rows of the feature store are not what "
        f"the raw log says ({check.edits} edits in {check.wrong_sequences} sequences; "
        f"{check.wrong_counters} counters, by up to {check.largest_difference:.3g} events),"
        f" and triton.max_wrong_features is {config.max_wrong_features:g}: `srp4ctr "
        "features check` shows them, `srp4ctr stream rebuild` makes them anew",
    )


def _latency_gate(client: Any, versions: tuple[Serving, str], config: TritonConfig) -> Gate:
    """Time the new steps against those that serve, both loaded, on the same server."""
    before, version = versions
    if before.serving is None:
        return skipped(LATENCY, "nothing served before")
    repository = Path(config.repository).resolve()
    old, new = (
        (each, repository_writer.step_folders(repository, each))
        for each in (before.serving, version)
    )
    return latency_gate(client, old, new, config.max_latency_ratio)


def _refusal(version: str, before: Serving, gates: Sequence[Gate]) -> PromotionError:
    why = "; ".join(str(gate) for gate in failed(gates))
    serves = before.serving or "nothing yet"
    return PromotionError(f"{version} was not promoted: {why}; serving: {serves}", gates)


@contextmanager
def connected(config: TritonConfig) -> Iterator[Any]:
    """Yield a client that may control the server; ``PromotionError`` if none answers."""
    with connect_in_control(config) as client:
        try:
            client.is_server_live(client_timeout=5.0)
        except InferenceServerException as error:
            raise PromotionError(
                f"no Triton answers on {config.grpc} ({error.message()}): "
                "is the stack up (srp4ctr stack status), and does it want triton.tls?"
            ) from error
        yield client
