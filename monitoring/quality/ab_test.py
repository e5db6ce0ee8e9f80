"""Settled impressions at position 1 → anytime-valid comparison of two click rates.

In: impressions as they are settled or corrected. Out: the difference of two versions' click
rates over slices of ten minutes in which both served, so that changes of traffic during the
day affect both. Only position 1 counts: over a whole slate the order does not matter.

The interval is a confidence sequence: it is valid at all times together, so you may look at
any time and stop when it excludes 0. A fixed-size test that is evaluated every hour finds a
difference between equal models in most weeks.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, log, sqrt

from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.quality.quality_sums import SettledImpression
from srp4ctr.monitoring.quality.version_order import version_order

SLICE_MS = 600_000
HORIZON_SLICES = 14 * 144  # two weeks
MIN_IMPRESSIONS = 100  # of each version: below, the normal approximation is wrong
ERROR = 0.05  # of the interval, over all times together
EXPECTED_DIFFERENCE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Click rate at position 1 of ``model_version`` minus that of ``baseline``."""

    model_version: str
    baseline: str
    impressions: int
    """Of ``model_version``, at position 1, in the slices in which both served."""
    click_rate: float
    """The difference, as a share of impressions."""
    interval: Interval

    @property
    def verdict(self) -> int:
        """1: better, -1: worse, 0: undecided."""
        return (self.interval.low > 0) - (self.interval.high < 0)

    @property
    def newer_and_older(self) -> tuple[str, str]:
        """The two versions; a control group counts as older than any bundle."""
        pair = self.model_version, self.baseline
        older, newer = sorted(pair, key=version_order)
        return newer, older

    @property
    def is_regression(self) -> bool:
        """Whether the newer version is worse. An older one that is worse was replaced."""
        newer, _ = self.newer_and_older
        return self.verdict == (-1 if newer == self.model_version else 1)


@dataclass(slots=True)
class _Count:
    shown: int = 0
    clicked: int = 0


class AbTest:
    """Counts of each version in slices of ten minutes of event time."""

    def __init__(self, expected_difference: float = EXPECTED_DIFFERENCE) -> None:
        """The interval is narrowest at ``expected_difference`` of click rates."""
        self._expected = expected_difference
        self._slices: dict[str, dict[int, _Count]] = defaultdict(dict)
        self._newest = 0

    def update(self, impression: SettledImpression, sign: int) -> None:
        """Add ``impression`` (``sign`` 1), or subtract it again (-1)."""
        if impression.position != 0 or impression.score is None:
            return
        number = impression.shown_at // SLICE_MS
        if number <= self._newest - HORIZON_SLICES:
            return
        count = self._slices[impression.model_version].setdefault(number, _Count())
        count.shown += sign
        count.clicked += sign * impression.is_click
        if number > self._newest:
            self._newest = number
            self._evict()

    def differences(self, baseline: str) -> tuple[Difference, ...]:
        """Return the difference to ``baseline`` of each version that served with it."""
        return tuple(
            self._difference(version, baseline)
            for version in sorted(self._slices)
            if version != baseline and self._shared(version, baseline)
        )

    def _shared(self, version: str, baseline: str) -> list[tuple[_Count, _Count]]:
        ours, theirs = self._slices[version], self._slices.get(baseline, {})
        both = ((ours[n], theirs[n]) for n in ours.keys() & theirs.keys())
        return [(a, b) for a, b in both if a.shown and b.shown]

    def _difference(self, version: str, baseline: str) -> Difference:
        """Return the difference, by slice weights n m / (n + m) (Cochran-Mantel-Haenszel).

        The weights correct for a version that has more traffic in a better hour.
        """
        shared = self._shared(version, baseline)
        shown, clicked = _total(a for a, _ in shared)
        other_shown, other_clicked = _total(b for _, b in shared)
        rate, other_rate = clicked / shown, other_clicked / other_shown
        spread, other_spread = rate * (1 - rate), other_rate * (1 - other_rate)
        weights = [a.shown * b.shown / (a.shown + b.shown) for a, b in shared]
        difference = variance = 0.0
        for weight, (a, b) in zip(weights, shared, strict=True):
            share = weight / sum(weights)
            difference += share * (a.clicked / a.shown - b.clicked / b.shown)
            variance += share**2 * (spread / a.shown + other_spread / b.shown)
        half = inf
        if min(shown, other_shown) >= MIN_IMPRESSIONS and variance > 0:
            half = anytime_half_width(variance, self._expected)
        return Difference(
            model_version=version,
            baseline=baseline,
            impressions=shown,
            click_rate=difference,
            interval=Interval(
                low=max(-1.0, difference - half), high=min(1.0, difference + half)
            ),
        )

    def _evict(self) -> None:
        oldest = self._newest - HORIZON_SLICES
        for version in list(self._slices):
            slices = self._slices[version]
            for number in [each for each in slices if each <= oldest]:
                del slices[number]
            if not slices:
                del self._slices[version]


def anytime_half_width(variance: float, expected: float) -> float:
    """Return half the width of the mixture test's interval (Johari et al. 2017).

    For an estimate of this ``variance``; ``expected`` is the standard deviation of the
    normal mixture over true differences.
    """
    mixed = variance + expected**2
    bound = 2 * log(1 / ERROR) + log(mixed / variance)
    return sqrt(variance * mixed / expected**2 * bound)


def _total(counts: Iterable[_Count]) -> tuple[int, int]:
    shown = clicked = 0
    for count in counts:
        shown += count.shown
        clicked += count.clicked
    return shown, clicked
