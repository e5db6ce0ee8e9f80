"""What other servers serve → the live repository of one that has not started yet.

A server that is added, or has lost its disk, has nothing to load, and a promotion changes
nothing where a bundle serves already. Its repository is rendered from the same bundles, by
the code of promotion, before it starts.
"""

import logging
from dataclasses import replace
from pathlib import Path

from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, repository_writer
from srp4ctr.triton_repo.deployment.live_repository import Serving, locked, read_serving

LOG = logging.getLogger(__name__)


def fill(
    repository: Path, config: TritonConfig, features: FeatureConfig, bundles: Path
) -> Serving:
    """Fill ``repository`` with what the first server serves; return what it holds then.

    The first server itself gets what the others serve, and only if it has nothing.
    ``bundles`` holds the bundles' folders. Raises ``ValueError`` where the serving one is
    gone, damaged or of another schema.
    """
    with locked(repository):
        own = read_serving(repository)
        wanted = _wanted(repository, own, config)
        if wanted.serving in (None, own.serving):
            return own
        one = replace(config, repository=str(repository), replicas=())
        for version in (wanted.previous, wanted.canary):
            if version and not (bundles / version).is_dir():
                LOG.warning("%s is gone: %s is filled without it", version, repository)
                wanted = _without(wanted, version)
        for version in sorted(filter(None, wanted.versions)):
            _render(bundles / version, one, features)
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
    previous = None if serving.previous == version else serving.previous
    canary = None if serving.canary == version else serving.canary
    return replace(serving, previous=previous, canary=canary)


def _render(source: Path, config: TritonConfig, features: FeatureConfig) -> None:
    if not source.is_dir():
        raise ValueError(f"{source} is gone: promote a bundle that is there")
    card = bundle.verify(source)
    if not repository_writer.is_rendered_from(
        Path(config.repository), source, card.version
    ):
        repository_writer.render(source, card, config, features)
