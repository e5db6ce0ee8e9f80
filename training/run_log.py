"""Curves for people who look: the numbers of a refresh → TensorBoard's files in a folder.

In: a name, a step, a value. Out: what ``tensorboard --logdir`` shows. Without the package
tensorboard, nothing is written: a refresh does not need it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol


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
