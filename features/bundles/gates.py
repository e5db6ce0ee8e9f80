"""Quality gates of a bundle: named checks with their values and limits.

Training and promotion return them; the bundle's card and the refresh report keep them.
Standard library only.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The result of one check."""

    gate: str
    passed: bool | None
    """None: there was nothing to measure, and the bundle may serve."""
    value: float | None = None
    limit: float | None = None
    """What ``value`` was compared with."""
    note: str = ""
    """What is compared, by how much it failed and how to fix it, or why it was skipped."""
    warning: bool = False
    """It passed, and the note says what is wrong all the same."""
    lost: float = 0.0
    """By how much the bundles that replaced each other since the best one became worse."""
    lost_error: float = 0.0
    """The standard error of ``lost``."""

    def __str__(self) -> str:
        return f"{self.gate}: {self.note or f'{self.value} against {self.limit}'}"


def skipped(gate: str, why: str) -> Gate:
    """Return the result of a check that could not be made."""
    return Gate(gate=gate, passed=None, note=why)


def failed(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """Return the ``gates`` that a bundle failed."""
    return tuple(gate for gate in gates if gate.passed is False)


def finite(figure: float) -> float | None:
    """Return ``figure``, or None where it is undefined: JSON has no NaN."""
    return float(figure) if math.isfinite(figure) else None
