"""How a refresh tells what it is doing: a call per step forward, drawn by the caller."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class ProgressListener(Protocol):
    """Called often; must be quick, and must not raise."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of ``step`` are done; ``note`` says how it goes."""
        ...


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Ignore progress."""


@dataclass(slots=True)
class Clock:
    """Announces steps and keeps the seconds that each took."""

    progress: ProgressListener
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce ``name`` as a step of one unit, and time it."""
        self.progress(name, 0, 1)
        with self.timed(name):
            yield
        self.progress(name, 1, 1)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a step that announces itself."""
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
