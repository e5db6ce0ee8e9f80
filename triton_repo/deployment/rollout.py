"""Bundle → several servers, one after another: all of them serve it, or none does.

Each server has a live repository of its own and answers requests by itself: while they
change in turn, each answer is entirely of the old bundle or of the new one. A server that
is added, or has lost its disk, has nothing to load, and a promotion changes nothing where a
bundle serves already: ``fill`` renders its repository before it starts.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, promotion, repository_writer
from srp4ctr.triton_repo.deployment.live_repository import Serving, locked, read_serving
from srp4ctr.triton_repo.deployment.promotion import Promotion

LOG = logging.getLogger(__name__)


def promote(
    source: Path,
    config: TritonConfig,
    features: FeatureConfig,
    store_gate: Gate,
    *,
    canary: bool = False,
) -> Promotion:
    """Serve the bundle in folder ``source`` on every server, as ``promotion.promote`` does.

    Where one of them refuses it or fails, those before it serve again exactly what they
    did, the previous bundle and the canary included. Returns the refusal, else the
    promotion on the first server.
    """
    changed: list[tuple[TritonConfig, Serving]] = []
    done: list[Promotion] = []
    for server in config.servers():
        before = read_serving(Path(server.repository))
        try:
            found = promotion.promote_keeping(
                source, server, features, store_gate, canary=canary
            )
        except (ValueError, OutageError):
            _take_back(changed)
            raise
        if found.refusal:
            _take_back(changed)
            return found
        if found.serving != before:
            changed.append((server, before))
        done.append(found)
    for server, _ in changed:
        promotion.remove_unused(server)
    return done[0]


def rollback(config: TritonConfig) -> Serving:
    """Serve the previous bundle on every server, and return what the first one serves.

    One that serves it already, as after an interrupted rollback, is left as it is.
    Raises ``MistakeError`` where the servers would come to serve different bundles.
    """
    servers = config.servers()
    states = [read_serving(Path(each.repository)) for each in servers]
    wanted = states[0].previous
    if wanted is None:
        return promotion.rollback(config)  # raises: there is no previous bundle
    for server, state in zip(servers, states, strict=True):
        if wanted not in (state.previous, state.serving):
            raise MistakeError(
                f"{server.grpc} served {state.previous} before {state.serving}, and not "
                f"{wanted}: srp4ctr model promote {wanted} makes them serve the same"
            )
    for server, state in zip(servers, states, strict=True):
        if state.serving != wanted:
            promotion.rollback(server)
    return read_serving(Path(config.repository))


def end_canary(config: TritonConfig) -> Serving:
    """End the canary on every server that has one; return what the first one serves."""
    having = [
        each for each in config.servers() if read_serving(Path(each.repository)).canary
    ]
    if not having:
        return promotion.end_canary(config)  # raises: there is no canary
    for server in having:
        promotion.end_canary(server)
    return read_serving(Path(config.repository))


def _take_back(changed: Sequence[tuple[TritonConfig, Serving]]) -> None:
    """Let the servers serve again what they did; warn of one that served nothing."""
    for server, before in reversed(changed):
        if before.serving is None:
            now = read_serving(Path(server.repository))
            LOG.warning("%s served nothing before: it stays at %s", server.grpc, now)
            continue
        try:
            promotion.restore(server, before)
        except (ValueError, OutageError):
            LOG.exception("%s was not taken back to %s", server.grpc, before.serving)


def fill(
    repository: Path,
    config: TritonConfig,
    features: FeatureConfig,
    bundle_folder: Callable[[str], Path],
) -> Serving:
    """Fill ``repository`` with what the first server serves; return what it holds then.

    The first server itself gets what the others serve, and only if it has nothing.
    ``bundle_folder`` returns a version's. Raises ``ArtifactError`` where the serving one is
    gone, damaged or of another schema.
    """
    with locked(repository):
        own = read_serving(repository)
        wanted = _wanted(repository, own, config)
        if wanted.serving in (None, own.serving):
            return own
        one = replace(config, repository=str(repository), replicas=())
        for version in (wanted.previous, wanted.canary):
            if version and not _is_whole(bundle_folder(version)):
                LOG.warning("%s is gone: %s is filled without it", version, repository)
                wanted = _without(wanted, version)
        for version in sorted(filter(None, wanted.versions)):
            _render(bundle_folder(version), one, features)
        live_repository.place(repository, wanted)
        return wanted


def _wanted(repository: Path, own: Serving, config: TritonConfig) -> Serving:
    first, *others = (Path(each.repository) for each in config.servers())
    if repository.resolve() != first.resolve():
        found = read_serving(first)
        return found if found.serving else own
    if own.serving is None:
        serving = (read_serving(each) for each in others)
        return next((each for each in serving if each.serving), own)
    return own


def _without(serving: Serving, version: str) -> Serving:
    if serving.canary == version:
        serving = serving.without_canary()
    return replace(serving, previous=None) if serving.previous == version else serving


def _is_whole(source: Path) -> bool:
    return (source / bundle.MANIFEST_FILE).is_file()


def _render(source: Path, config: TritonConfig, features: FeatureConfig) -> None:
    if not _is_whole(source):
        raise ArtifactError(f"{source} is gone: promote a bundle that is there")
    card = bundle.verify(source)
    if not repository_writer.is_rendered_from(
        Path(config.repository), source, card.version
    ):
        repository_writer.render(source, card, config, features)
