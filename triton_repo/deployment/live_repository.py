"""The live model repository: which bundle each ensemble runs, switched as a whole."""

import fcntl
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from tritonclient.utils import InferenceServerException

from srp4ctr.atomic_files import replace_text
from srp4ctr.errors import OutageError
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import repository_writer

LOG = logging.getLogger(__name__)
LOAD_TIMEOUT_S = 180.0  # a step loads in seconds; next to a training later
LOCK_WAIT_S = 200.0  # a repair of crashed processes may load for LOAD_TIMEOUT_S
CONFIG = "config.pbtxt"
NUMBER_FILE = "rollout_number"
_POLL_S = 0.02
# 0: none. Not an argument, as all changes of a rollout are made in its one thread.
_rollout_number: ContextVar[int] = ContextVar("rollout_number", default=0)
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
    def answering(self) -> tuple[str | None, str | None, float]:
        """What callers can notice: ``serving``, ``canary`` and its share."""
        return self.serving, self.canary, self.canary_share

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


class StaleRolloutError(OutageError):
    """A later rollout has taken over: this one may not write any more."""


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Let ``locked`` refuse repositories that a rollout above ``number`` has locked."""
    token = _rollout_number.set(number)
    try:
        yield
    finally:
        _rollout_number.reset(token)


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Hold the lock of the repository: one change at a time.

    Within ``numbered`` the repository records that rollout's number. Raises
    ``StaleRolloutError`` if it has a higher one, and ``OutageError`` if another process
    keeps the lock for ``LOCK_WAIT_S``.
    """
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / "promotion.lock").open("w") as lock:
        acquire(lock)
        if number := _rollout_number.get():
            _record_number(repository, number)
        yield


def acquire(lock: IO[str]) -> None:
    """Lock the open file ``lock``; ``OutageError`` after ``LOCK_WAIT_S``.

    A process that is stopped (SIGSTOP, a frozen machine) keeps its locks.
    """
    until_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until_s:
                raise OutageError(
                    f"another process has locked {lock.name} for more than "
                    f"{LOCK_WAIT_S:g} s: find it by `fuser {lock.name}` and end it if it "
                    "is stopped, then run srp4ctr model reconcile"
                ) from None
        time.sleep(_POLL_S)


def last_number(repository: Path) -> int:
    """Return the number of the rollout that has locked the repository last; 0: none."""
    path = repository / NUMBER_FILE
    return int(path.read_text()) if path.is_file() else 0


def _record_number(repository: Path, number: int) -> None:
    last = last_number(repository)
    if last > number:
        raise StaleRolloutError(
            f"rollout {number} was paused beyond its lease, and rollout {last} has taken "
            f"over {repository}: srp4ctr model reconcile shows what serves now"
        )
    if last < number:
        replace_text(repository / NUMBER_FILE, str(number))


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
        if client is not None:
            _unload_ensemble(client, name)
        shutil.rmtree(live.parent)


def _unload_ensemble(client: Any, name: str) -> None:
    try:
        client.unload_model(name)
    except InferenceServerException:  # it may never have loaded
        index = client.get_model_repository_index(as_json=True).get("models", [])
        if any(each["name"] == name and each.get("state") == "READY" for each in index):
            raise


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _configs(repository: Path, serving: Serving) -> dict[str, str | None]:
    """Return the configuration of each ensemble; None: there is to be no such ensemble.

    A bundle may lack one, as that of three steps RECOMMEND_ITEMS, and must still serve
    the others.
    """
    configs = {
        version: repository_writer.ensemble_configs(repository, version)
        for version in filter(None, {serving.serving, serving.canary})
    }
    return {
        name: configs[version].get(name) if version else None
        for name, version in serving.ensembles.items()
    }
