"""The bundles' folders → cards of the newest bundles, each read once.

A bundle never changes; folders are added and removed.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.drift_reference import (
    REFERENCE_FILE,
    Reference,
    read_reference,
)
from srp4ctr.features.bundles.rule_results import LESS_BEST_RULE
from srp4ctr.monitoring.cost.triton_counters import CostCard

LOG = logging.getLogger(__name__)
NEWEST = 5
METRICS = (
    "auc",
    "gauc",
    "ctr_at_1",
    "log_loss",
    "calibration",
    "normalised_entropy",
    LESS_BEST_RULE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """A bundle card's figures."""

    version: str
    created_at_ms: int
    window_start_ms: int
    window_end_ms: int
    metrics: Mapping[str, float]
    cost: CostCard
    is_sampled: bool
    """Trained with sampled negatives: its scores are a preference."""
    reference: Reference | None
    """Of the drift metrics; None where the bundle has none."""


UNKNOWN = BundleFacts(
    version="",
    created_at_ms=0,
    window_start_ms=0,
    window_end_ms=0,
    metrics={},
    cost=CostCard(),
    is_sampled=False,
    reference=None,
)


class BundleCache:
    """Reads each bundle's card once; what could not be read is read again the next time."""

    def __init__(self, bundles_dir: Path) -> None:
        self._bundles_dir = bundles_dir
        self._facts: dict[str, BundleFacts] = {}
        self._reported: dict[str, str] = {}

    def of(self, version: str) -> BundleFacts:
        """Return the card of ``version``'s bundle; ``UNKNOWN`` if it cannot be read."""
        if version in self._facts:
            return self._facts[version]
        folder = self._bundles_dir / version
        try:
            facts = _read(version, folder)
        except (OSError, ValueError) as error:  # removed, or the disk is away
            self._report(version, f"no card: {error}")
            return UNKNOWN
        if facts.reference is None and (folder / REFERENCE_FILE).exists():
            self._report(version, f"no drift: {folder / REFERENCE_FILE} cannot be read")
        else:
            self._facts[version] = facts
        return facts

    def versions(self) -> set[str]:
        """Return the versions of all bundles that exist."""
        bundles = bundle.list_bundles(self._bundles_dir, bundle.CARD_FILE)
        return {folder.name for folder in bundles}

    def newest(self, serving: str | None) -> tuple[BundleFacts, ...]:
        """Return the newest few bundles, and the serving one."""
        folders = bundle.list_bundles(self._bundles_dir, bundle.CARD_FILE)[-NEWEST:]
        versions = {*(folder.name for folder in folders), *filter(None, [serving])}
        found = (self.of(version) for version in sorted(versions))
        return tuple(each for each in found if each is not UNKNOWN)

    def _report(self, version: str, problem: str) -> None:
        """Log a problem once, not with every poll."""
        if self._reported.get(version) != problem:
            self._reported[version] = problem
            LOG.warning("%s", problem)


def _read(version: str, folder: Path) -> BundleFacts:
    card = bundle.read(folder)
    return BundleFacts(
        version=version,
        created_at_ms=card.created_at_ms,
        window_start_ms=card.window_start_ms,
        window_end_ms=card.window_end_ms,
        metrics={n: card.metrics[n] for n in METRICS if n in card.metrics},
        cost=CostCard.of(card.cost),
        is_sampled=card.negatives == "sampled",
        reference=read_reference(folder),
    )
