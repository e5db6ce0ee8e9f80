"""A bundle → the repository of a server that is added, or that has lost its disk.

Such a server has nothing to load, and a promotion changes nothing where a bundle serves
already: its repository is filled before it starts.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, reconcile
from srp4ctr.triton_repo.deployment.live_repository import Serving, locked, read_serving

LOG = logging.getLogger(__name__)


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
        serving = read_serving(repository)
        wanted = _wanted(repository, serving, config)
        if wanted.serving in (None, serving.serving):
            return serving
        one = replace(config, repository=str(repository), replicas=())
        for version in (wanted.previous, wanted.canary):
            if version and not reconcile.is_whole(bundle_folder(version)):
                LOG.warning("%s is gone: %s is filled without it", version, repository)
                wanted = _without(wanted, version)
        for version in sorted(filter(None, wanted.versions)):
            reconcile.render_bundle(bundle_folder(version), one, features)
        live_repository.place(repository, wanted)
        return wanted


def _wanted(repository: Path, own: Serving, config: TritonConfig) -> Serving:
    first, *others = (Path(server.repository) for server in config.servers())
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
