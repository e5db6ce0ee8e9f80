"""Settled impressions at position 1 → anytime-valid comparison of two click rates.

In: impressions as they are settled or corrected. Out: the difference of two versions' click
rates over slices of ten minutes in which both served, so that changes of traffic during the
day affect both. Only position 1 counts: over a whole slate the order does not matter.

In an experiment the versions are its arms: those that users were assigned to, whichever
then answered (intention to treat). Only arms of one experiment are compared.

The unit is the user: versions are assigned by user, and users return, so the variance is
that of sums by group of users. The interval is a confidence sequence: it is valid at all
times together, so you may look at any time and stop when it excludes 0. A fixed-size test
that is evaluated every hour finds a difference between equal models in most weeks. Several
versions share the error, so that all verdicts together are right (Bonferroni).
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.quality.quality_sums import SettledImpression
from srp4ctr.monitoring.quality.sample_ratio import (
    MAX_EXPERIMENTS,
    SampleRatio,
    SampleRatios,
    SampleRatioState,
)
from srp4ctr.monitoring.quality.user_groups import (
    NUM_GROUPS,
    RatioEstimate,
    ratio_of_sums,
)
from srp4ctr.monitoring.quality.version_order import version_name, version_order

SLICE_MS = 600_000
HORIZON_SLICES = 14 * 144  # two weeks
# Of each version; below, the normal approximation is wrong.
MIN_IMPRESSIONS = 100
MIN_EFFECTIVE_USERS = 50  # (Σ n)² / Σ n²: one user with half of the traffic makes it 4
ERROR = 0.05  # of all intervals together, over all times together
EXPECTED_DIFFERENCE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Click rate at position 1 of ``model_version`` minus that of ``baseline``."""

    model_version: str
    baseline: str
    experiment: str = ""
    """Whose arms the two are; "": those that answered."""
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


Floats = NDArray[np.floating[Any]]


class AbTestState(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of an ``AbTest``."""

    newest: int
    counts: dict[str, dict[str, bytes]]
    """By experiment and version: float32 of (HORIZON_SLICES, 2 × NUM_GROUPS), in which
    impressions come before clicks."""
    users: dict[str, SampleRatioState]
    """By experiment."""


class _Slices:
    """Counts of a version, in a ring: a slice's row is its number modulo the horizon."""

    def __init__(self, counts: bytes | None = None) -> None:
        shape = (HORIZON_SLICES, 2 * NUM_GROUPS)
        self._counts = np.zeros(shape, np.float32)
        if counts is not None:
            self._counts[:] = np.frombuffer(counts, np.float32).reshape(shape)
        self.shown = self._counts[:, :NUM_GROUPS].sum(1, dtype=float)

    def state(self) -> bytes:
        """Return the counts in the order of rows."""
        return self._counts.tobytes()

    def update(self, number: int, group: int, is_click: bool, sign: int) -> None:
        """Add an impression in slice ``number``, or subtract it again."""
        row = number % HORIZON_SLICES
        self.shown[row] += sign
        self._counts[row, group] += sign
        if is_click:
            self._counts[row, NUM_GROUPS + group] += sign

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Forget the slices in ``rows``."""
        self.shown[rows] = 0.0
        self._counts[rows] = 0.0

    def add(self, other: "_Slices", rows: NDArray[np.int64]) -> None:
        """Add the slices in ``rows`` of ``other``."""
        self.shown[rows] += other.shown[rows]
        self._counts[rows] += other._counts[rows]

    def rate(self, weights: Floats) -> RatioEstimate:
        """Return the click rate over all slices; ``weights`` has one of each."""
        shown, clicked = np.split(weights.astype(np.float32) @ self._counts, 2)
        return ratio_of_sums(clicked, shown)

    def newest(self, of: NDArray[np.int64]) -> int:
        """Return the newest of the slices ``of`` with impressions; -1 if none has."""
        return int(max(of[self.shown[of % HORIZON_SLICES] > 0], default=-1))


class AbTest:
    """Counts of each version in slices of ten minutes of event time, by experiment."""

    def __init__(
        self,
        expected_difference: float = EXPECTED_DIFFERENCE,
        bundles: Collection[str] = (),
    ) -> None:
        """The interval is narrowest at ``expected_difference`` of click rates.

        ``bundles`` always have counts of their own; of other names ``MAX_OTHERS``.
        """
        self._expected, self._bundles = expected_difference, bundles
        # By experiment ("": without one) and version, 4 MB each.
        self._versions: dict[str, dict[str, _Slices]] = {}
        self._users = SampleRatios(bundles)
        self._newest = 0

    def update(self, impression: SettledImpression, sign: int) -> None:
        """Add ``impression`` (``sign`` 1), or subtract it again (-1)."""
        self._users.update(impression)
        if impression.position != 0 or impression.score is None:
            return
        number = impression.shown_at // SLICE_MS
        if number <= self._newest - HORIZON_SLICES:
            return
        if number > self._newest:
            self._advance(number)
        named, name = "", impression.model_version
        if impression.experiment and impression.arm:
            named, name = impression.experiment, impression.arm
        versions = self._of_experiment(named)
        version = version_name(name, versions, self._bundles)
        if version not in versions:
            versions[version] = _Slices()
        group, is_click = impression.user_group, impression.is_click
        versions[version].update(number, group, is_click, sign)

    def differences(self, baseline: str) -> tuple[Difference, ...]:
        """Return the difference to ``baseline`` of each version that served with it.

        Of a version that did so in several experiments, that of the newest.
        """
        together: dict[str, _Together] = {}
        for experiment in sorted(self._versions, key=self._newness):
            versions = self._versions[experiment]
            if (theirs := versions.get(baseline)) is None:
                continue
            for version, ours in versions.items():
                sizes = _common_sizes(ours, theirs)
                if version != baseline and sizes.any():
                    together[version] = _Together(experiment, ours, theirs, sizes)
        verdicts = sum(each.are_enough for each in together.values())
        error = ERROR / max(1, verdicts)
        return tuple(
            self._difference(version, baseline, pair, error)
            for version, pair in sorted(together.items())
        )

    def add(self, other: "AbTest") -> None:
        """Add the impressions of ``other``, which has other users."""
        self._users.add(other._users)
        if other._newest > self._newest:
            self._advance(other._newest)
        first = max(self._newest - HORIZON_SLICES + 1, other._newest - HORIZON_SLICES + 1)
        rows = np.arange(first, other._newest + 1) % HORIZON_SLICES
        for experiment in sorted(other._versions, key=other._newness):
            ours = self._of_experiment(experiment)
            for name, slices in other._versions[experiment].items():
                version = version_name(name, ours, self._bundles)
                ours.setdefault(version, _Slices()).add(slices, rows)

    def state(self) -> AbTestState:
        """Return a copy of the sums."""
        counts = {
            experiment: {version: each.state() for version, each in versions.items()}
            for experiment, versions in self._versions.items()
        }
        return AbTestState(newest=self._newest, counts=counts, users=self._users.state())

    def restore(self, state: AbTestState) -> None:
        """Continue from ``state``; call it before the first impression."""
        self._newest = state.newest
        self._versions = {
            experiment: {version: _Slices(each) for version, each in versions.items()}
            for experiment, versions in state.counts.items()
        }
        self._users.restore(state.users)

    def sample_ratios(self) -> tuple[SampleRatio, ...]:
        """Return how the users of each running experiment are split."""
        return tuple(self._users.ratios(self._newest * SLICE_MS))

    def _of_experiment(self, name: str) -> dict[str, _Slices]:
        """Return the versions of an experiment; of too many the one is dropped that has
        had no impression for the longest time."""
        if name not in self._versions:
            others = [version for version in self._versions if version]
            if name and len(others) >= MAX_EXPERIMENTS:
                del self._versions[min(others, key=self._newness)]
            self._versions[name] = {}
        return self._versions[name]

    def _newness(self, experiment: str) -> tuple[bool, int]:
        """Return the key that sorts experiments by their newest slices, "" first."""
        every = np.arange(self._newest - HORIZON_SLICES + 1, self._newest + 1)
        newest = (version.newest(every) for version in self._versions[experiment].values())
        return experiment != "", max(newest, default=-1)

    def _difference(
        self, version: str, baseline: str, pair: "_Together", error: float
    ) -> Difference:
        """Return the difference, by slice weights n m / (n + m) (Cochran-Mantel-Haenszel).

        The weights correct for a version that has more traffic in a better hour.
        """
        sizes = pair.sizes
        weights = sizes[::-1] / np.maximum(sizes.sum(0), 1.0)  # by the other's share
        ours, theirs = pair.ours.rate(weights[0]), pair.theirs.rate(weights[1])
        half = 2.0  # excludes nothing
        if pair.are_enough:
            half = float(anytime_half_widths(ours, theirs, self._expected, error))
        difference = float(ours.value - theirs.value)
        return Difference(
            model_version=version,
            baseline=baseline,
            experiment=pair.experiment,
            impressions=int(sizes[0].sum()),
            click_rate=difference,
            interval=Interval(
                low=max(-1.0, difference - half), high=min(1.0, difference + half)
            ),
        )

    def _advance(self, newest: int) -> None:
        """Forget the slices that the horizon leaves, and versions without others."""
        first = max(self._newest + 1, newest - HORIZON_SLICES + 1)
        rows = np.arange(first, newest + 1) % HORIZON_SLICES
        self._newest = newest
        for experiment, versions in list(self._versions.items()):
            for version, slices in list(versions.items()):
                slices.clear(rows)
                if not slices.shown.any():
                    del versions[version]
            if not versions:
                del self._versions[experiment]


@dataclass(frozen=True, slots=True)
class _Together:
    """Two versions, and the impressions (2, slices) of slices in which both served."""

    experiment: str
    ours: _Slices
    theirs: _Slices
    sizes: Floats

    @property
    def are_enough(self) -> bool:
        """Whether there may be a verdict."""
        return bool(self.sizes.sum(1).min() >= MIN_IMPRESSIONS)


def _common_sizes(ours: _Slices, theirs: _Slices) -> Floats:
    """Return the impressions of both (2, slices), of slices in which both served."""
    sizes = np.array([ours.shown, theirs.shown])
    sizes[:, (sizes <= 0).any(0)] = 0.0
    return sizes


def anytime_half_widths(
    ours: RatioEstimate, theirs: RatioEstimate, expected: float, error: float = ERROR
) -> Floats:
    """Return half the widths of the intervals of ``ours`` - ``theirs``.

    ``error`` is the chance that they ever miss the truth, over all times together.
    2, which excludes nothing, with too few users or without any click.
    """
    variance = ours.variance + theirs.variance
    users = np.minimum(ours.effective_users, theirs.effective_users)
    with np.errstate(invalid="ignore", divide="ignore"):
        halves = mixture_half_widths(variance, expected, error)
    is_known = (users >= MIN_EFFECTIVE_USERS) & (variance > 0)
    return np.where(is_known, halves, 2.0)


def mixture_half_widths(variances: Floats, expected: float, error: float = ERROR) -> Floats:
    """Return half the widths of the mixture test's intervals (Johari et al. 2017).

    For estimates of these ``variances``; ``expected`` is the standard deviation of the
    normal mixture over true differences.
    """
    mixed = variances + expected**2
    bound = 2 * np.log(1 / error) + np.log(mixed / variances)
    halves: Floats = np.sqrt(variances * mixed / expected**2 * bound)
    return halves
