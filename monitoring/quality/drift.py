"""How features and scores are spread in service → how far they have moved since training.

In: counters of each version's feature bins, which only grow, and the references in the
bundles. Out: the population stability index of each feature over the last ``window_s``, and
the shares of unseen items and of users without a history, beside training's.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from srp4ctr.features.bundles.drift_reference import (
    COLD_USER,
    UNSEEN_ITEM,
    Reference,
    stability_index,
)

SNAPSHOT_S = 60.0
SHARES = (COLD_USER, UNSEEN_ITEM)
Cells = Mapping[tuple[str, str], float]
"""(version, ``feature/bin``) → values counted there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One feature of one version."""

    model_version: str
    feature: str
    index: float
    """NaN while there are too few values."""
    then: float
    now: float
    """Share of the values in the last bin, at training and in the window: what ``SHARES``
    are about. NaN of no value."""


class Drift:
    """Keeps a snapshot of the counters a minute, for as long as the window."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._snapshots: deque[tuple[float, Cells]] = deque()
        self._now: Cells = {}

    def observe(self, cells: Cells, now_s: float) -> None:
        """Take in the counters as they are at ``now_s``, of a clock that never jumps."""
        self._now = cells
        if not self._snapshots or now_s - self._snapshots[-1][0] >= SNAPSHOT_S:
            self._snapshots.append((now_s, dict(cells)))
        while len(self._snapshots) > 1 and self._snapshots[1][0] <= now_s - self._window_s:
            self._snapshots.popleft()

    def movements(self, references: Mapping[str, Reference]) -> Iterator[Movement]:
        """Yield how each feature of each version with a reference has moved."""
        before = self._snapshots[0][1] if self._is_old() else {}
        for version, reference in sorted(references.items()):
            for feature, bins in reference.bins.items():
                places = [(version, f"{feature}/{n}") for n in range(len(bins.shares))]
                counts = [self._now.get(p, 0.0) - before.get(p, 0.0) for p in places]
                if total := sum(counts):
                    yield Movement(
                        model_version=version,
                        feature=feature,
                        index=stability_index(bins, counts),
                        then=bins.shares[-1],
                        now=counts[-1] / total,
                    )

    def _is_old(self) -> bool:
        """Return whether the oldest snapshot is where the window begins.

        Before that everything counted so far is in the window.
        """
        if not self._snapshots:
            return False
        oldest, newest = self._snapshots[0][0], self._snapshots[-1][0]
        return newest - oldest >= self._window_s - SNAPSHOT_S
