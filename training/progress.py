"""How a refresh tells what it is doing: a call per step forward, drawn by the caller."""

from typing import Protocol


class ProgressListener(Protocol):
    """Called often; must be quick, and must not raise."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of ``step`` are done; ``note`` says how it goes."""
        ...


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Ignore progress."""
