"""tritonserver's child processes → a step whose process died runs again.

Triton restarts none: calls that it gives to a dead one fail after a second each, and the
server says that it is ready. Loading a step whose file has a new date makes new processes
beside the old ones and then lets the old go: meanwhile its living ones answer.
"""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local import processes
from triton_repo.config import TritonConfig
from triton_repo.live import locked
from triton_repo.promotion import connected

LOG = logging.getLogger(__name__)
_LOAD_TIMEOUT_S = 180.0  # two processes import Feast: 7 s beside three busy callers


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A child process of the server."""

    pid: int
    is_dead: bool
    """Killed, and not reaped: Triton reaps those that it ends itself."""
    step: str
    """"" of a dead or dying one, whose command is gone."""


class Watch:
    """Looks after the steps of one server; call ``look`` once or twice a second."""

    def __init__(self, server_pid: int, config: TritonConfig) -> None:
        self._server_pid = server_pid
        self._config = config
        self._steps: dict[int, str] = {}
        self._dead: set[int] = set()

    def look(self) -> list[str]:
        """Return the steps that had died by the look before, and run again now."""
        now = list(children(self._server_pid))
        self._steps |= {child.pid: child.step for child in now if child.step}
        dead = {child.pid for child in now if child.is_dead} & self._steps.keys()
        lost, self._dead = dead & self._dead, dead  # twice: an orderly end is a short one
        steps = sorted({self._steps[pid] for pid in lost})
        return [step for step in steps if self._revive(step)]

    def _revive(self, step: str) -> bool:
        of_step = {pid for pid, name in self._steps.items() if name == step}
        LOG.warning("%s: a process of it has died; it is loaded anew", step)
        try:
            is_there = reload(self._config, step)
        except Exception:  # whatever the server says, its other steps need us
            LOG.exception("%s was not loaded anew; it is tried again", step)
            return False
        for child in children(self._server_pid):
            # Triton 2.51 never ends what is left of a step that lost a process.
            if child.pid in of_step and child.step:
                os.kill(child.pid, signal.SIGKILL)
        for pid in of_step:
            del self._steps[pid]
        LOG.warning("%s %s", step, "runs again" if is_there else "is not served any more")
        return is_there


def reload(config: TritonConfig, step: str) -> bool:
    """Load ``step`` anew, beside itself; return whether it was loaded at all."""
    repository = Path(config.repository).resolve()
    with locked(repository), connected(config) as client:
        index = client.get_model_repository_index(as_json=True).get("models", [])
        if step not in {each["name"] for each in index if each.get("state") == "READY"}:
            return False
        (repository / step / "1" / "model.py").touch()
        client.load_model(step, client_timeout=_LOAD_TIMEOUT_S)
    return True


def children(server_pid: int) -> Iterator[Child]:
    """Yield the server's child processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with suppress(OSError):  # it has ended meanwhile
            state, parent, *_ = processes.stat_fields(pid)
            if int(parent) == server_pid:
                is_dead = state in processes.DEAD
                yield Child(pid=pid, is_dead=is_dead, step=_step_of(folder))


def _step_of(process: Path) -> str:
    """Return the model in a stub's command line: ``…/click_ranker_v7/1/model.py``."""
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    files = (Path(word) for word in words if word.endswith("/model.py"))
    return next((file.parts[-3] for file in files), "")
