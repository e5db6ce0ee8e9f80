"""Bundle → serving: load the new steps beside the old ones, prove them, then switch.

The switch replaces the ensembles' configuration files and reloads the ensembles alone:
no request is lost, and none is answered by a mixed pair. Whatever fails before or during
it leaves the old pair serving.
"""

import fcntl
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from features import bundle
from features.check_report import FeatureCheck
from features.config import FeatureConfig
from features.gates import Gate, failed, skipped
from features.whole_files import replace_text
from triton_repo import pbtxt, rendering
from triton_repo.config import TritonConfig
from triton_repo.golden import LATENCY, check_version, golden_gate, latency_gate

LOG = logging.getLogger(__name__)
SERVING_FILE = "serving.json"
_LOAD_TIMEOUT_S = 180.0  # a step that imports Feast loads in 3 s on an idle core


class PromotionError(RuntimeError):
    """A bundle was not promoted or rolled back; says why, and what serves now."""

    def __init__(self, message: str, gates: Sequence[Gate] = ()) -> None:
        super().__init__(message)
        self.gates = tuple(gates)
        """What was checked; none of them failed where the server did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Which bundles the live repository serves: the content of ``serving.json``."""

    serving: str | None = None
    previous: str | None = None
    """Stays loaded, so that a rollback is only a switch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What serves after a promotion, and what was checked on the way."""

    serving: Serving
    gates: tuple[Gate, ...] = ()
    """None where the bundle served already."""


def read_serving(repository: Path) -> Serving:
    """Return what the live repository serves; nothing before the first promotion."""
    path = repository / SERVING_FILE
    return Serving(**json.loads(path.read_text())) if path.is_file() else Serving()


def promote(
    source: Path,
    config: TritonConfig,
    features: FeatureConfig,
    check: Callable[[], FeatureCheck],
) -> Promotion:
    """Serve the bundle in folder ``source``; return what serves then.

    Raises ValueError for a bundle that is damaged or of another schema, and
    ``PromotionError`` where ``check`` finds the feature store wrong, or where the server
    refuses the bundle, answers differently from training or much slower than before: then
    the old pair still serves. Promoting what serves already changes nothing.
    """
    card = bundle.verify(source)
    repository = Path(config.repository).resolve()
    with locked(repository):
        before = read_serving(repository)
        known = {before.serving, before.previous} | _live_versions(repository)
        if card.version in known:
            _check_same(repository, source, card.version)
        if card.version == before.serving:
            return Promotion(serving=before)
        gates = [_store_gate(check(), config)]
        if failed(gates):
            raise _refusal(card.version, before, gates)
        if card.version not in known:
            rendering.render(source, card, config, features)
        after = _switch(card.version, before, config, gates)
        return Promotion(serving=after, gates=tuple(gates))


def rollback(config: TritonConfig) -> Serving:
    """Serve the previous bundle again, and return what serves then."""
    repository = Path(config.repository).resolve()
    with locked(repository):
        before = read_serving(repository)
        if before.previous is None:
            raise ValueError(f"nothing was served before {before.serving} in {repository}")
        return _switch(before.previous, before, config)


def _switch(
    version: str, before: Serving, config: TritonConfig, gates: list[Gate] | None = None
) -> Serving:
    """Load and prove the rendered steps of ``version``, then move both ensembles to it.

    What is proved is added to ``gates``; without, as in a rollback, speed is no matter.
    """
    repository = Path(config.repository).resolve()
    proved = [] if gates is None else gates
    with connected(config) as client:
        try:
            folders = rendering.step_folders(repository, version)
            if not folders:
                raise ValueError(f"{version} is gone: promote the bundle again")
            for folder in folders:
                client.load_model(folder.name, client_timeout=_LOAD_TIMEOUT_S)
            proved.append(golden_gate(client, folders, version))
            if gates is not None:
                proved.append(_latency_gate(client, (before, version), config))
            for gate in failed(proved):
                raise ValueError(str(gate))
            after = Serving(serving=version, previous=before.serving)
            _move_ensembles(client, repository, after)
        except (InferenceServerException, ValueError, OSError) as error:
            _unload(client, repository, keep={before.serving, before.previous})
            serves = before.serving or "nothing yet"
            raise PromotionError(
                f"{version} was not promoted: {error}; serving: {serves}", proved
            ) from error
        _unload(client, repository, keep={after.serving, after.previous})
    _remove_folders(repository, keep={after.serving, after.previous})
    return after


def _move_ensembles(client: Any, repository: Path, after: Serving) -> None:
    """Point both ensembles at ``after`` and note it; on any failure put the old ones back.

    An interrupt or a full disk is a failure too: half a switch must not stay.
    """
    version = after.serving
    assert version is not None
    kept = rendering.step_folders(repository, version)[0] / rendering.ENSEMBLE_FOLDER
    old: dict[str, str | None] = {}
    try:
        for name in pbtxt.ENSEMBLES:
            live = repository / name / "config.pbtxt"
            old[name] = live.read_text() if live.is_file() else None
            (repository / name / "1").mkdir(parents=True, exist_ok=True)
            replace_text(live, (kept / f"{name}.pbtxt").read_text())
            client.load_model(name, client_timeout=_LOAD_TIMEOUT_S)
        check_version(client, version)
        replace_text(repository / SERVING_FILE, json.dumps(asdict(after)))
    except BaseException:
        _put_back(client, repository, old)
        raise


def _put_back(client: Any, repository: Path, old: Mapping[str, str | None]) -> None:
    for name, text in old.items():
        live = repository / name / "config.pbtxt"
        try:
            if text is None:
                with suppress(InferenceServerException):  # it may never have loaded
                    client.unload_model(name)
                shutil.rmtree(live.parent)
            else:
                replace_text(live, text)
                client.load_model(name, client_timeout=_LOAD_TIMEOUT_S)
        except (InferenceServerException, OSError):  # the other one may still go back
            LOG.exception("%s was not put back; promote a bundle to repair it", name)


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
    keep = keep | _live_versions(repository)
    return [
        folder
        for step in pbtxt.STEPS
        for folder in sorted(repository.glob(f"{step}_v*"))
        if folder.name.removeprefix(f"{step}_") not in keep
    ]


def _live_versions(repository: Path) -> set[str | None]:
    """Return the versions that the live ensembles name.

    A killed promotion leaves others there than in ``serving.json``: what answers requests
    is never unloaded, removed or rendered again.
    """
    named = re.compile(rf'model_name: "(?:{"|".join(pbtxt.STEPS)})_(v[^"]*)"')
    configs = [repository / name / "config.pbtxt" for name in pbtxt.ENSEMBLES]
    texts = [path.read_text() for path in configs if path.is_file()]
    return {version for text in texts for version in named.findall(text)}


def _check_same(repository: Path, source: Path, version: str) -> None:
    """Raise ValueError where another bundle of the same version is live."""
    if not rendering.is_rendered_from(repository, source, version):
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
        (each, rendering.step_folders(repository, each))
        for each in (before.serving, version)
    )
    return latency_gate(client, old, new, config.max_latency_ratio)


def _refusal(version: str, before: Serving, gates: Sequence[Gate]) -> PromotionError:
    why = "; ".join(str(gate) for gate in failed(gates))
    serves = before.serving or "nothing yet"
    return PromotionError(f"{version} was not promoted: {why}; serving: {serves}", gates)


@contextmanager
def connected(config: TritonConfig) -> Iterator[Any]:
    """Yield a client of the server; raises ``PromotionError`` if none answers."""
    with InferenceServerClient(config.grpc) as client:
        try:
            client.is_server_live(client_timeout=5.0)
        except InferenceServerException as error:
            raise PromotionError(
                f"no Triton answers on {config.grpc} ({error.message()}): "
                "is the stack up? (srp4ctr stack status)"
            ) from error
        yield client


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Let one change at a time into the repository."""
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / "promotion.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
