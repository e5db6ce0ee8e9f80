"""A synthetic user's event → seconds until the same ranking request has other scores.

The probe uses the real path: broker, worker, store, Triton. Its event is a behaviour, which
changes the user's own history and no counter; training excludes synthetic users. In:
functions that publish and rank, and the known items. Out: a histogram, failures by reason.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from srp4ctr.errors import Srp4ctrError
from srp4ctr.streams.events.schema import SYNTHETIC_USERS

LOG = logging.getLogger(__name__)
USERS = 16  # in turn: each one's history grows to L and stays there
CANDIDATES = 10
FEWEST_ITEMS = 2
POLL_S = 0.05  # each poll is one more request
TIMEOUT_S = 20.0
# What a publication or a ranking may fail with; any other exception is a bug and passes.
FORESEEN = (Srp4ctrError, OSError, RuntimeError, ValueError)
BUCKETS_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20)


class RankedScores(Protocol):
    """The part of a ranking that the probe reads."""

    @property
    def scores(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def feature_version(self) -> str: ...  # noqa: D102


Publish = Callable[[str, str], None]
"""(user_id, item_id): publishes a behaviour, or raises."""
Rank = Callable[[str, Sequence[str]], RankedScores]
"""(user_id, item_ids) → the ranking; raises if there is none."""


class Probe:
    """Measures the time from a synthetic behaviour to changed scores, user by user."""

    def __init__(
        self,
        publish: Publish,
        rank: Rank,
        items: Callable[[], Sequence[str]],
        registry: CollectorRegistry,
    ) -> None:
        self._publish, self._rank, self._items = publish, rank, items
        self._numbers = itertools.count()
        self._last_success = time.monotonic()
        self._seconds = Histogram(
            "srp4ctr_probe_seconds",
            "Time from a synthetic user's behaviour to changed scores of the same request.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._failures = Counter(
            "srp4ctr_probe_failures", "Probes that failed.", ["reason"], registry=registry
        )
        for reason in ("publish", "rank", "unchanged"):
            self._failures.labels(reason)  # starts at 0: a rate needs a first value
        age = Gauge(
            "srp4ctr_probe_age_seconds",
            "Time since a probe last saw a changed score, or since the start.",
            registry=registry,
        )
        age.set_function(lambda: time.monotonic() - self._last_success)

    def run(self, interval_s: float, stop: threading.Event) -> None:
        """Probe every ``interval_s`` until ``stop`` is set."""
        while not stop.wait(interval_s):
            self.once(stop)

    def once(self, stop: threading.Event | None = None) -> float | None:
        """Probe once; return the seconds, or None if the probe failed or was stopped.

        Without known items it does nothing.
        """
        items = self._items()
        if len(items) < FEWEST_ITEMS:
            return None
        number = next(self._numbers)
        user, item = f"{SYNTHETIC_USERS}{number % USERS}", items[number % len(items)]
        try:
            before = self._rank(user, items[:CANDIDATES])
        except FORESEEN as error:
            self._failed("rank", error)
            return None
        began = time.monotonic()
        try:
            self._publish(user, item)
        except FORESEEN as error:
            self._failed("publish", error)
            return None
        return self._wait(
            user, items[:CANDIDATES], before, began, stop or threading.Event()
        )

    def _wait(
        self,
        user: str,
        items: Sequence[str],
        before: RankedScores,
        began: float,
        stop: threading.Event,
    ) -> float | None:
        """Rank until the history's version and the scores have changed."""
        while time.monotonic() - began < TIMEOUT_S:
            if stop.wait(POLL_S):
                return None
            try:
                now = self._rank(user, items)
            except FORESEEN as error:
                self._failed("rank", error)
                return None
            # Scores also follow items' counters: the history's version must change.
            if _history(now) != _history(before) and now.scores != before.scores:
                self._last_success = time.monotonic()
                self._seconds.observe(self._last_success - began)
                return self._last_success - began
        self._failed("unchanged", None)
        return None

    def _failed(self, reason: str, error: Exception | None) -> None:
        LOG.warning("probe: %s: %s", reason, error or f"no change within {TIMEOUT_S:g} s")
        self._failures.labels(reason).inc()


def _history(ranking: RankedScores) -> str:
    """Return the version of the sequence in ``sequence=…,…,items=…``; "" if unknown."""
    first, _, _ = ranking.feature_version.partition(",")
    return first if first.startswith("sequence=") else ""
