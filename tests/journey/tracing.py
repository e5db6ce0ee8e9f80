"""Which files' functions run while a switch is on, in all processes of a path.

A Python process that has the recorder's folder on its path finds this file there under the
name ``sitecustomize``, which Python imports before all else: so it imports nothing of ours.
What runs because something is imported does not count.
"""

import json
import mmap
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import CO_OPTIMIZED  # a function's code has it; a module's or class's has not
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

_SWITCH, _HOOK = "switch", "sitecustomize"


class Visit(NamedTuple):
    """The first line of a file that a thread ran after the switch was turned on."""

    at_ns: int
    recording: int
    process: str  # its number and its command
    thread: str
    file: str
    function: str


@dataclass(frozen=True, slots=True)
class Recorder:
    """The switch, and what processes wrote while it was on."""

    folder: Path
    names: list[str] = field(default_factory=list)

    @contextmanager
    def recording(self, name: str) -> Iterator[None]:
        """Turn the switch on and off again; ``visits`` knows what was seen by ``name``."""
        self.names.append(name)
        _turn(self.folder, len(self.names))
        try:
            yield
        finally:
            _turn(self.folder, 0)

    def visits(self, name: str) -> Sequence[Visit]:
        """Return what recording ``name`` saw, in the order of time."""
        files = self.folder.glob("*.jsonl")
        lines = [line for file in files for line in file.read_text().splitlines()]
        found = sorted(Visit(*json.loads(line)) for line in lines)
        return [each for each in found if each.recording == self.names.index(name) + 1]


@contextmanager
def recorder(folder: Path) -> Iterator[Recorder]:
    """Yield a recorder of this process, and of those that have ``folder`` on their path."""
    shutil.copyfile(__file__, folder / f"{_HOOK}.py")
    _turn(folder, 0)
    listen(folder)
    try:
        yield Recorder(folder)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def listening(environment: Path, folder: Path) -> Path:
    """Return a virtual environment that has all of ``environment``, and ``folder``.

    For processes that read no PYTHONPATH, as a step of Triton's.
    """
    copy = folder / "env"
    (packages,) = environment.glob("lib/python*/site-packages")
    own = copy / packages.relative_to(environment)
    own.mkdir(parents=True)
    adds = f"{folder}\nimport site; site.addsitedir({str(packages)!r})\n"
    (own / "listening.pth").write_text(adds)
    (copy / "bin").mkdir()
    (copy / "bin" / "python3").symlink_to(environment / "bin" / "python")
    shutil.copyfile(environment / "pyvenv.cfg", copy / "pyvenv.cfg")
    return copy


def listen(folder: Path) -> None:
    """Record this thread of this process from here on, and those that it starts."""
    with (folder / _SWITCH).open("rb") as file:
        switch = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
    # A descriptor: another thread may still write when this process ends.
    records = os.open(folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT)
    command = Path("/proc/self/cmdline").read_text().replace("\0", " ")
    seen: set[tuple[int, str, int]] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if not (number := switch[0]):
            return
        code, thread = frame.f_code, threading.get_ident()
        key = number, code.co_filename, thread
        if key in seen or not code.co_flags & CO_OPTIMIZED or _is_importing(frame):
            return
        seen.add(key)
        who = f"{os.getpid()}: {command}", threading.current_thread().name
        now_ns = time.monotonic_ns()  # one clock for all processes
        visit = Visit(now_ns, number, *who, code.co_filename, code.co_name)
        os.write(records, f"{json.dumps(visit)}\n".encode())

    threading.setprofile(note)
    sys.setprofile(note)


def _is_importing(frame: FrameType | None) -> bool:
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _turn(folder: Path, number: int) -> None:
    """Write in place: processes have the file mapped."""
    path = folder / _SWITCH
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(bytes([number]))


if __name__ == _HOOK:
    listen(Path(__file__).parent)
