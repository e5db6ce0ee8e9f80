"""Live distributions of features and scores → their drift since training.

In: counters of each version's feature bins, which only grow, and the references in the
bundles. Out: the population stability index (PSI) of each feature over the last
``window_s``, and the shares of unseen items and of users without a history.
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
# Features that are shares → their metric.
SHARES = {
    COLD_USER: "srp4ctr_cold_user_share",
    UNSEEN_ITEM: "srp4ctr_unseen_item_share",
}
Cells = Mapping[tuple[str, str], float]
"""(version, ``feature/bin``) → values counted there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDrift:
    """Drift of one feature of one version."""

    model_version: str
    feature: str
    psi: float
    """NaN while there are too few values."""
    training_share: float
    """Of the values in the last bin: the features ``SHARES`` are these shares."""
    live_share: float


class Drift:
    """Keeps one snapshot of the counters per minute over the window."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._snapshots: deque[tuple[float, Cells]] = deque()
        self._now: Cells = {}

    def observe(self, cells: Cells, now_s: float) -> None:
        """Add the counters at ``now_s``, which is of a monotonic clock."""
        self._now = cells
        if not self._snapshots or now_s - self._snapshots[-1][0] >= SNAPSHOT_S:
            self._snapshots.append((now_s, dict(cells)))
        while len(self._snapshots) > 1 and self._snapshots[1][0] <= now_s - self._window_s:
            self._snapshots.popleft()

    def feature_drifts(self, references: Mapping[str, Reference]) -> Iterator[FeatureDrift]:
        """Yield the drift of each feature of each version with a reference."""
        before = self._snapshots[0][1] if self._is_old() else {}
        for version, reference in sorted(references.items()):
            for feature, bins in reference.bins.items():
                places = [(version, f"{feature}/{n}") for n in range(len(bins.shares))]
                counts = [self._now.get(p, 0.0) - before.get(p, 0.0) for p in places]
                if total := sum(counts):
                    yield FeatureDrift(
                        model_version=version,
                        feature=feature,
                        psi=stability_index(bins, counts),
                        training_share=bins.shares[-1],
                        live_share=counts[-1] / total,
                    )

    def _is_old(self) -> bool:
        """Return whether the snapshots cover the window.

        Before that, all counts so far are in the window.
        """
        if not self._snapshots:
            return False
        oldest, newest = self._snapshots[0][0], self._snapshots[-1][0]
        return newest - oldest >= self._window_s - SNAPSHOT_S
