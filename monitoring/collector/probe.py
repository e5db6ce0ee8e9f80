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

from prometheus_client import CollectorRegistry

from srp4ctr import metrics
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
        self._seconds = metrics.histogram("srp4ctr_probe_seconds", registry)
        self._failures = metrics.counter("srp4ctr_probe_failures_total", registry)
        for reason in ("publish", "rank", "unchanged"):
            self._failures.labels(reason)  # starts at 0: a rate needs a first value
        age = metrics.gauge("srp4ctr_probe_age_seconds", registry)
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
        stop = stop or threading.Event()
        try:
            waited_s = wait_for_change(
                lambda: self._rank(user, items[:CANDIDATES]), before, began, stop, TIMEOUT_S
            )
        except FORESEEN as error:
            self._failed("rank", error)
            return None
        if waited_s is not None:
            self._last_success = time.monotonic()
            self._seconds.observe(waited_s)
        elif not stop.is_set():
            self._failed("unchanged", None)
        return waited_s

    def _failed(self, reason: str, error: Exception | None) -> None:
        LOG.warning("probe: %s: %s", reason, error or f"no change within {TIMEOUT_S:g} s")
        self._failures.labels(reason).inc()


def wait_for_change(
    rank: Callable[[], RankedScores],
    before: RankedScores,
    began: float,
    stop: threading.Event,
    timeout_s: float,
) -> float | None:
    """Return the seconds from ``began`` until ``rank()`` has changed by a user's event.

    None after ``timeout_s``, or once ``stop`` is set; raises what ``rank`` raises.
    """
    while time.monotonic() - began < timeout_s:
        if stop.wait(POLL_S):
            return None
        if has_changed(before, rank()):
            return time.monotonic() - began
    return None


def has_changed(before: RankedScores, after: RankedScores) -> bool:
    """Return whether an event of the user has changed the scores.

    They also follow items' counters: the version of the user's history must have changed.
    """
    return _history(after) != _history(before) and after.scores != before.scores


def _history(ranking: RankedScores) -> str:
    """Return the version of the user's row in ``user=…,items=…``; "" if unknown."""
    first, _, _ = ranking.feature_version.partition(",")
    return first if first.startswith("user=") else ""
