"""Reloads the steps of a tritonserver whose processes have crashed.

Triton restarts none: requests that it sends to a dead process fail after a second each,
while the server reports that it is ready. Reloading a step whose file has a new date starts
new processes and then removes the old ones, whose survivors answer meanwhile. One process
is started first, half the work of two on busy cores; the step then gets its others without
another reload. (Removing the dead process from the step is faster, but blocks all requests
for a second.)
"""

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from srp4ctr import processes
from srp4ctr.features.bundles.crash_counts import count_crashes
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment.live_repository import CONFIG, locked
from srp4ctr.triton_repo.deployment.one_server import connected

LOG = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 60.0
_LOAD_TIMEOUT_S = 180.0  # seconds, with eight busy callers


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A child process of the server."""

    pid: int
    is_dead: bool
    """Killed, and not reaped: Triton reaps those that it ends itself."""
    step: str
    """"" of a dead process, whose command line is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pause:
    """After a failed reload."""

    seconds: float = 0.0
    until_s: float = 0.0
    reason: str = ""


class Watch:
    """Replaces crashed steps of one server; call ``poll`` a few times per second."""

    def __init__(
        self,
        server_pid: int,
        config: TritonConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server_pid = server_pid
        self._config = config
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}
        self._steps: dict[int, str] = {}
        self._dead: set[int] = set()
        self._broken: set[str] = set()
        self._counted: set[int] = set()

    def poll(self) -> list[str]:
        """Reload the steps that were dead at the last poll, too; return those that run."""
        now = list(children(self._server_pid))
        self._steps |= {child.pid: child.step for child in now if child.step}
        dead = {child.pid for child in now if child.is_dead} & self._steps.keys()
        lost, self._dead = dead & self._dead, dead  # twice: Triton soon reaps its own
        self._broken |= {self._steps[pid] for pid in lost}
        self._count(lost - self._counted)
        return [step for step in sorted(self._broken) if self._try_reload(step)]

    def _count(self, lost: set[int]) -> None:
        if not lost:
            return
        self._counted |= lost
        versions = [self._steps[pid].rpartition("_")[2] for pid in lost]
        try:
            count_crashes(Path(self._config.repository), versions)
        except OSError:  # it is reloaded all the same
            LOG.exception("the crash could not be recorded for the monitor")

    def _try_reload(self, step: str) -> bool:
        """Reload ``step``; after a failure not again for a while, which doubles."""
        pause = self._pauses.get(step, _Pause())
        if self._clock() < pause.until_s:
            return False
        try:
            found = self._reload_step(step)
        except Exception as error:  # the other steps still have to be watched
            seconds = min(max(1.0, 2 * pause.seconds), _LONGEST_PAUSE_S)
            until_s, reason = self._clock() + seconds, repr(error)
            self._pauses[step] = _Pause(seconds=seconds, until_s=until_s, reason=reason)
            again = f"{step} could not be reloaded; trying again in {seconds:.0f} s"
            # The same trace at each try would fill the disk.
            LOG.error(again, exc_info=reason != pause.reason)
            return False
        self._pauses.pop(step, None)
        return found

    def _reload_step(self, step: str) -> bool:
        LOG.warning("%s: one of its processes has crashed; reloading the step", step)
        old = {pid for pid, name in self._steps.items() if name == step}
        is_there = reload(self._config, step, partial(self._end, step, old))
        self._broken.remove(step)
        for pid in old:
            del self._steps[pid]
        self._counted -= old
        LOG.warning("%s %s", step, "runs again" if is_there else "is no longer served")
        return is_there

    def _end(self, step: str, old: set[int]) -> None:
        """Kill the surviving processes of ``old``: Triton 2.51 never ends them itself."""
        now = list(children(self._server_pid))
        dead = {child.pid for child in now if child.is_dead}
        self._count((dead & old) - self._counted)
        for child in now:
            if child.pid in old and child.step == step:
                self._counted.add(child.pid)  # we kill it: not a crash
                os.kill(child.pid, signal.SIGKILL)
        LOG.warning("%s: a new process answers", step)


def reload(config: TritonConfig, step: str, replaced: Callable[[], None]) -> bool:
    """Reload ``step`` while it serves; return whether it was loaded at all.

    Calls ``replaced`` once a new process answers and the old ones get no more requests.
    """
    repository = Path(config.repository).resolve()
    with locked(repository), connected(config) as client:
        index = client.get_model_repository_index(as_json=True).get("models", [])
        if step not in {each["name"] for each in index if each.get("state") == "READY"}:
            return False
        load = partial(client.load_model, step, client_timeout=_LOAD_TIMEOUT_S)
        loaded = client.get_model_config(step, as_json=True)["config"]
        groups = _groups_in(repository / step / CONFIG)
        (
            repository / step / "1" / "model.py"
        ).touch()  # a new date: Triton starts new processes
        load(config=json.dumps({**loaded, "instance_group": groups[:1]}))
        replaced()
        if len(groups) > 1:
            load(config=json.dumps({**loaded, "instance_group": groups}))
    return True


def _groups_in(file: Path) -> list[Any]:
    """Return the instance groups in a step's ``config.pbtxt``."""
    config: Any = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
    read = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return list(read["instance_group"])


def children(server_pid: int) -> Iterator[Child]:
    """Yield the server's child processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with suppress(OSError):  # the process has ended
            state, parent, *_ = processes.stat_fields(pid)
            if int(parent) == server_pid:
                is_dead = state in processes.DEAD
                yield Child(pid=pid, is_dead=is_dead, step=_step_of(folder))


def _step_of(process: Path) -> str:
    """Return the model in a stub's command line: ``…/click_ranker_v7/1/model.py``."""
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    files = (Path(word) for word in words if word.endswith("/model.py"))
    return next((file.parts[-3] for file in files), "")
