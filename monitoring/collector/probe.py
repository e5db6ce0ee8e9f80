"""A synthetic user acts, and asks for a ranking → how long until the answer has changed.

Through the real path: broker, worker, store, Triton. What it does is a behaviour, which
moves its own history and no counter; training leaves such users out. In: how to act, how to
ask, and which items there are. Out: a histogram of seconds, and failures by reason.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from srp4ctr.streams.events.schema import SYNTHETIC_USERS

LOG = logging.getLogger(__name__)
USERS = 16  # by turns: the history of each grows to L and stays there
CANDIDATES = 10
FEWEST_ITEMS = 2
POLL_S = 0.05  # each poll is a request more
TIMEOUT_S = 20.0
BUCKETS_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20)


class Answer(Protocol):
    """What a ranking says."""

    @property
    def scores(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def feature_version(self) -> str: ...  # noqa: D102


Act = Callable[[str, str], None]
"""(user_id, item_id) → a behaviour is published; raises where it is not."""
Ask = Callable[[str, Sequence[str]], Answer]
"""(user_id, item_ids) → their ranking; raises where there is none."""


class Probe:
    """Measures from a synthetic behaviour to another score, one user after the other."""

    def __init__(
        self,
        act: Act,
        ask: Ask,
        items: Callable[[], Sequence[str]],
        registry: CollectorRegistry,
    ) -> None:
        self._act, self._ask, self._items = act, ask, items
        self._turn = itertools.count()
        self._last_success = time.monotonic()
        self._seconds = Histogram(
            "srp4ctr_probe_seconds",
            "From a synthetic user's behaviour to another score of the same request.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._failures = Counter(
            "srp4ctr_probe_failures", "Probes that failed.", ["reason"], registry=registry
        )
        for reason in ("publish", "rank", "unchanged"):
            self._failures.labels(reason)  # 0 from the start: a rate needs a beginning
        age = Gauge(
            "srp4ctr_probe_age_seconds",
            "Since a probe last saw a changed score, or since the start.",
            registry=registry,
        )
        age.set_function(lambda: time.monotonic() - self._last_success)

    def run(self, interval_s: float, stop: threading.Event) -> None:
        """Probe every ``interval_s`` until ``stop`` is set."""
        while not stop.wait(interval_s):
            self.once(stop)

    def once(self, stop: threading.Event | None = None) -> float | None:
        """Probe once; return the seconds, or None where that failed or was stopped.

        Nothing is done until items are known: without any there is nothing to rank.
        """
        items = self._items()
        if len(items) < FEWEST_ITEMS:
            return None
        turn = next(self._turn)
        user, acted_on = f"{SYNTHETIC_USERS}{turn % USERS}", items[turn % len(items)]
        try:
            before = self._ask(user, items[:CANDIDATES])
        except Exception as error:
            self._failed("rank", error)
            return None
        began = time.monotonic()
        try:
            self._act(user, acted_on)
        except Exception as error:
            self._failed("publish", error)
            return None
        return self._wait(
            user, items[:CANDIDATES], before, began, stop or threading.Event()
        )

    def _wait(
        self,
        user: str,
        items: Sequence[str],
        before: Answer,
        began: float,
        stop: threading.Event,
    ) -> float | None:
        """Ask until the history is another one and the scores are others."""
        while time.monotonic() - began < TIMEOUT_S:
            if stop.wait(POLL_S):
                return None
            try:
                now = self._ask(user, items)
            except Exception as error:
                self._failed("rank", error)
                return None
            # Items' counters move too: the history's version must have changed.
            if _history(now) != _history(before) and now.scores != before.scores:
                self._last_success = time.monotonic()
                self._seconds.observe(self._last_success - began)
                return self._last_success - began
        self._failed("unchanged", None)
        return None

    def _failed(self, reason: str, error: Exception | None) -> None:
        LOG.warning("probe: %s: %s", reason, error or f"no change within {TIMEOUT_S:g} s")
        self._failures.labels(reason).inc()


def _history(answer: Answer) -> str:
    """Return the version of the sequence in ``sequence=…,…,items=…``; "" of a stranger."""
    first, _, _ = answer.feature_version.partition(",")
    return first if first.startswith("sequence=") else ""
