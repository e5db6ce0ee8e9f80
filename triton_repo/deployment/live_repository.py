"""The live model repository: which bundle each ensemble runs, switched as a whole."""

import fcntl
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tritonclient.utils import InferenceServerException

from srp4ctr.atomic_files import replace_text
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import repository_writer

LOG = logging.getLogger(__name__)
LOAD_TIMEOUT_S = 180.0  # a step loads in seconds; next to a training later
CONFIG = "config.pbtxt"
_STEP = re.compile(rf'model_name: "(?:{"|".join(model_names.STEPS)})_(v[^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Which bundles the live repository serves: the content of ``serving.json``."""

    serving: str | None = None
    previous: str | None = None
    """Stays loaded, so that a rollback is only a switch."""
    canary: str | None = None
    """Answers ``rank_clicks_canary``: the requests of a share of the users."""
    canary_share: float = 0.0
    """That share, 0 to 1."""

    def promoted(self, version: str) -> "Serving":
        """Return what serves once ``version`` does, which then is no canary any more."""
        after = replace(self, serving=version, previous=self.serving)
        return after.without_canary() if self.canary == version else after

    def without_canary(self) -> "Serving":
        """Return what serves once the canary has ended."""
        return replace(self, canary=None, canary_share=0.0)

    @property
    def versions(self) -> set[str | None]:
        """The bundles that stay loaded."""
        return {self.serving, self.previous, self.canary}

    @property
    def ensembles(self) -> Mapping[str, str | None]:
        """The bundle that each ensemble runs; None: there is no such ensemble."""
        return {
            model_names.RANK_CLICKS: self.serving,
            model_names.SCORE_CLICKS: self.serving,
            model_names.RANK_CLICKS_CANARY: self.canary,
            model_names.ENCODE_USER: self.serving,
            model_names.CANDIDATE_STATES: self.serving,
            model_names.RECOMMEND_ITEMS: self.serving,
            model_names.CANARY_EXPERIMENT: self.canary,
        }


def read_serving(repository: Path) -> Serving:
    """Return what the live repository serves; nothing before the first promotion."""
    path = repository / model_names.SERVING_FILE
    return Serving(**json.loads(path.read_text())) if path.is_file() else Serving()


def live_versions(repository: Path) -> set[str | None]:
    """Return the versions that the live ensembles name.

    After a killed promotion they differ from ``serving.json``: what answers requests is
    never unloaded, removed or rendered again.
    """
    configs = [repository / name / CONFIG for name in model_names.ENSEMBLES]
    texts = [path.read_text() for path in configs if path.is_file()]
    return {version for text in texts for version in _STEP.findall(text)}


def is_switched(repository: Path, serving: Serving) -> bool:
    """Return whether each ensemble's file is that of ``serving``.

    A promotion that was killed leaves others.
    """
    return all(
        _read(repository / name / CONFIG) == text
        for name, text in _configs(repository, serving).items()
    )


def switch(
    client: Any, repository: Path, after: Serving, *checks: Callable[[], object]
) -> None:
    """Point all ensembles at ``after``, run ``checks`` of it, and write ``serving.json``.

    On any failure, also an interrupt or a full disk, the old ones are restored: half a
    switch must not stay.
    """
    old: dict[str, str | None] = {}
    try:
        for name, text in _configs(repository, after).items():
            live = repository / name / CONFIG
            old[name] = _read(live)
            load_ensemble(client, live, text)
        for check in checks:
            check()
        replace_text(repository / model_names.SERVING_FILE, json.dumps(asdict(after)))
    except BaseException:
        restore(client, repository, old)
        raise


def place(repository: Path, serving: Serving) -> None:
    """Point all ensembles at ``serving``, for a server that starts afterwards."""
    for name, text in _configs(repository, serving).items():
        load_ensemble(None, repository / name / CONFIG, text)
    replace_text(repository / model_names.SERVING_FILE, json.dumps(asdict(serving)))


def restore(client: Any, repository: Path, old: Mapping[str, str | None]) -> None:
    """Give each ensemble its ``old`` configuration again; None: it had none."""
    for name, text in old.items():
        try:
            load_ensemble(client, repository / name / CONFIG, text)
        except (InferenceServerException, OSError):  # others can still be restored
            LOG.exception("%s was not restored; promote a bundle to repair it", name)


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Hold the lock of the repository: one change at a time."""
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / "promotion.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def load_ensemble(client: Any, live: Path, text: str | None) -> None:
    """Load the ensemble with the configuration ``text``; None: unload and remove it.

    Without a ``client`` no server runs, and only the files change.
    """
    name = live.parent.name
    if text is not None:
        (live.parent / "1").mkdir(parents=True, exist_ok=True)
        replace_text(live, text)
        if client is not None:
            client.load_model(name, client_timeout=LOAD_TIMEOUT_S)
    elif live.parent.is_dir():
        with suppress(InferenceServerException):  # it may never have loaded
            if client is not None:
                client.unload_model(name)
        shutil.rmtree(live.parent)


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _configs(repository: Path, serving: Serving) -> dict[str, str | None]:
    """Return the configuration of each ensemble; None: there is to be no such ensemble.

    A bundle that an older release rendered may lack one, and must still serve the others.
    """
    configs = {
        version: repository_writer.ensemble_configs(repository, version)
        for version in filter(None, {serving.serving, serving.canary})
    }
    return {
        name: configs[version].get(name) if version else None
        for name, version in serving.ensembles.items()
    }
