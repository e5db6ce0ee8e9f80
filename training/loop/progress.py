"""What a refresh reports while it runs: progress, seconds by step, TensorBoard's curves.

In: what is done of which step, and numbers by name. Out: calls of a listener, which draws
them, and what ``tensorboard --logdir`` shows. Without the package tensorboard no curves are
written: a refresh does not need it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol


class ProgressListener(Protocol):
    """Called often; must be quick, and must not raise."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of ``step`` are done; ``note`` has loss and speed."""
        ...


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Ignore progress."""


@dataclass(slots=True)
class Clock:
    """Announces steps and records the seconds of each."""

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


class ScalarLog(Protocol):
    """Keeps a number; must be quick."""

    def __call__(self, name: str, value: float, step: int) -> None:
        """Keep ``value`` of ``name`` at ``step``."""
        ...


def unlogged(name: str, value: float, step: int) -> None:
    """Keep nothing."""


@contextmanager
def logging_to(folder: Path | None) -> Iterator[ScalarLog]:
    """Write to ``folder`` while the block runs; None writes nothing."""
    if folder is None or find_spec("tensorboard") is None:
        yield unlogged
        return
    from torch.utils.tensorboard.writer import SummaryWriter  # a quarter of a second

    with SummaryWriter(str(folder)) as writer:

        def log(name: str, value: float, step: int) -> None:
            writer.add_scalar(name, value, step)

        yield log
