"""The bundles' folders → cards of the newest bundles, each read once.

A bundle never changes; folders are added and removed.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.drift_reference import Reference, read_reference
from srp4ctr.monitoring.cost.triton_counters import CostCard

LOG = logging.getLogger(__name__)
NEWEST = 5
METRICS = ("auc", "gauc", "log_loss", "calibration", "normalised_entropy")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """A bundle card's figures."""

    version: str
    created_at_ms: int
    window_start_ms: int
    window_end_ms: int
    metrics: Mapping[str, float]
    cost: CostCard
    reference: Reference | None
    """Of the drift metrics; None in bundles that are older than references."""


UNKNOWN = BundleFacts(
    version="",
    created_at_ms=0,
    window_start_ms=0,
    window_end_ms=0,
    metrics={},
    cost=CostCard(),
    reference=None,
)


class BundleCache:
    """Reads each bundle's card once."""

    def __init__(self, bundles_dir: Path) -> None:
        self._bundles_dir = bundles_dir
        self._facts: dict[str, BundleFacts] = {}

    def of(self, version: str) -> BundleFacts:
        """Return the card of ``version``'s bundle; ``UNKNOWN`` if the bundle is gone."""
        if version not in self._facts:
            self._facts[version] = self._read(version)
        return self._facts[version]

    def newest(self, serving: str | None) -> tuple[BundleFacts, ...]:
        """Return the newest few bundles, and the serving one."""
        folders = bundle.list_bundles(self._bundles_dir)[-NEWEST:]
        versions = {*(folder.name for folder in folders), *filter(None, [serving])}
        found = (self.of(version) for version in sorted(versions))
        return tuple(each for each in found if each is not UNKNOWN)

    def _read(self, version: str) -> BundleFacts:
        folder = self._bundles_dir / version
        try:
            card = bundle.read(folder)
        except ValueError as error:
            LOG.warning("no card: %s", error)
            return UNKNOWN
        return BundleFacts(
            version=version,
            created_at_ms=card.created_at_ms,
            window_start_ms=card.window_start_ms,
            window_end_ms=card.window_end_ms,
            metrics={n: card.metrics[n] for n in METRICS if n in card.metrics},
            cost=CostCard.of(card.cost),
            reference=read_reference(folder),
        )
