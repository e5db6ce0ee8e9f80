"""Users by arm of an experiment → evidence that they were not split as the server said.

A split that is off (a sample-ratio mismatch) means that users of one arm are lost or sent
to the other one, and then no comparison of the arms holds. The test is the sequential one
of Lindon & Malek (2022, "Anytime-valid inference for multinomial count data") for two arms:
the ratio of the likelihood of the counts under a beta prior around the share, and under the
share itself. It may be looked at at any time: while users are split as they should be, it
ever exceeds 1/a with probability a at most. Ratios of independent users multiply, so their
logarithms add up over partitions and monitors.

Each user counts once, when the first impression is settled. Only the first ``MAX_USERS`` of
an experiment count, so that memory is bounded.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from math import lgamma, log

import msgspec
import numpy as np

from srp4ctr.monitoring.quality.quality_sums import SettledImpression
from srp4ctr.streams.events.experiments import Experiment
from srp4ctr.streams.events.schema import item_key

MAX_EXPERIMENTS = 8
MAX_USERS = 16_384
"""Of an experiment. Four of five losses of 8 % of the canary's users are found by then at a
share of a half, and of 18 % at a twentieth."""
ACTIVE_MS = 86_400_000
"""An experiment has figures until it had no impression for a day."""
PRIOR_USERS = 400.0
"""How many users the prior weighs: its standard deviation is 2.5 points at a half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """How the users of an experiment are split."""

    experiment: Experiment
    of_canary: int
    of_serving: int

    @property
    def evidence(self) -> float:
        """The natural logarithm of the ratio of likelihoods: above 6.9 in one of 1,000
        experiments that are split as they should be, at most."""
        share = self.experiment.share
        if share == 1.0:  # then any other user is one too many
            return float("inf") if self.of_serving else 0.0
        prior = PRIOR_USERS * share, PRIOR_USERS * (1 - share)
        counts = self.of_canary, self.of_serving
        mixture = _log_beta(prior[0] + counts[0], prior[1] + counts[1]) - _log_beta(*prior)
        return mixture - counts[0] * log(share) - counts[1] * log(1 - share)


class SampleRatioState(msgspec.Struct, frozen=True, kw_only=True):
    """What ``SampleRatios`` has counted of one experiment."""

    counts: tuple[int, int]
    newest_ms: int
    users: bytes
    """int64 of each user that was counted."""


class SampleRatios:
    """The users of each experiment of a canary, by arm."""

    def __init__(self, bundles: Collection[str]) -> None:
        """Only experiments between two of ``bundles``, which exist, are counted: producers
        may publish any name, and each pair of versions has series of its own.
        """
        self._bundles = bundles
        self._counted: dict[str, _Users] = {}

    def update(self, impression: SettledImpression) -> None:
        """Count the user of ``impression``, unless that was done."""
        name, arm = impression.experiment, impression.arm
        if not name or not arm:
            return
        if (users := self._counted.get(name)) is None:
            experiment = Experiment.named(name)
            if experiment is None:
                return  # of another experiment, whose shares are not known
            if not {experiment.canary, experiment.serving} <= {*self._bundles}:
                return
            if len(self._counted) >= MAX_EXPERIMENTS:
                del self._counted[min(self._counted, key=self._newness)]
            users = self._counted[name] = _Users(experiment)
        users.newest_ms = max(users.newest_ms, impression.shown_at)
        users.add(item_key(impression.request[0]), arm)

    def add(self, other: "SampleRatios") -> None:
        """Add the users of ``other``, which are others."""
        for name in sorted(other._counted, key=other._newness):
            theirs = other._counted[name]
            ours = self._counted.setdefault(name, _Users(theirs.experiment))
            ours.newest_ms = max(ours.newest_ms, theirs.newest_ms)
            ours.counts = [a + b for a, b in zip(ours.counts, theirs.counts, strict=True)]

    def ratios(self, now_ms: int) -> Iterator[SampleRatio]:
        """Yield the split of users in the newest experiment of each two versions, unless it
        had no impression in the day before ``now_ms``.
        """
        newest: dict[tuple[str, str], _Users] = {}
        for name in sorted(self._counted, key=self._newness):
            each = self._counted[name]
            if each.newest_ms >= now_ms - ACTIVE_MS:
                newest[each.experiment.canary, each.experiment.serving] = each
        for each in newest.values():
            of_canary, of_serving = each.counts
            yield SampleRatio(
                experiment=each.experiment, of_canary=of_canary, of_serving=of_serving
            )

    def state(self) -> dict[str, SampleRatioState]:
        """Return a copy of what was counted, by experiment."""
        return {
            name: SampleRatioState(
                counts=(each.counts[0], each.counts[1]),
                newest_ms=each.newest_ms,
                users=np.array(sorted(each.seen), np.int64).tobytes(),
            )
            for name, each in self._counted.items()
        }

    def restore(self, state: dict[str, SampleRatioState]) -> None:
        """Continue from ``state``; call it before the first impression."""
        for name, each in state.items():
            if experiment := Experiment.named(name):
                seen = set(np.frombuffer(each.users, np.int64).tolist())
                counts = list(each.counts)
                self._counted[name] = _Users(experiment, each.newest_ms, counts, seen)

    def _newness(self, name: str) -> int:
        return self._counted[name].newest_ms


@dataclass(slots=True)
class _Users:
    experiment: Experiment
    newest_ms: int = 0
    counts: list[int] = field(default_factory=lambda: [0, 0])
    seen: set[int] = field(default_factory=set)

    def add(self, user: int, arm: str) -> None:
        if len(self.seen) < MAX_USERS and user not in self.seen:
            self.seen.add(user)
            self.counts[arm != self.experiment.canary] += 1


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
