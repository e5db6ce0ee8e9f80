"""What the step did and met → counters, told to Triton once a second by a thread.

Triton counts a step's runs and its time; what serving costs and what it meets the step
counts itself, each under the model's name, and its parts under the names of the steps that
they are elsewhere. The monitor reads all of it from Triton's page.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from srp4ctr.features.bundles.drift_reference import Reference, read_reference
from srp4ctr.triton_repo.model_names import (
    BEHAVIOR_ENCODER,
    CLICK_HEAD,
    FETCH_FEATURES,
    step_name,
)

LOG = logging.getLogger(__name__)
# Family → its one further label ("": none), and what it counts.
PART_RUNS, PART_US = "srp4ctr_part_runs", "srp4ctr_part_us"
CPU_US = "srp4ctr_cpu_us"
CANDIDATES = "srp4ctr_candidates"
ANSWERS, ANSWERS_US = "srp4ctr_answers", "srp4ctr_answers_us"
REQUEST_STATUS, ITEM_STATUS = "srp4ctr_request_status", "srp4ctr_item_status"
FEATURE_AGE, FEATURE_AGE_MS = "srp4ctr_feature_age", "srp4ctr_feature_age_ms"
TABLE_AGE_MS, TABLE_READS = "srp4ctr_table_age_ms", "srp4ctr_table_reads"
FEATURE_BIN = "srp4ctr_feature_bin"
REFUSED = "srp4ctr_refused"
FAMILIES: Mapping[str, tuple[str, str]] = {
    PART_RUNS: ("", "Requests that a part worked on."),
    PART_US: ("", "Time of a part, in microseconds."),
    CPU_US: ("", "CPU time of the step's processes, in microseconds."),
    CANDIDATES: ("", "Candidates scored, padding left out."),
    ANSWERS: ("under", "Calls answered within so many seconds, more than the next less."),
    ANSWERS_US: ("", "Time of answered calls, in microseconds."),
    REQUEST_STATUS: ("status", "Requests by what was known of their user."),
    ITEM_STATUS: ("status", "Candidates by what was known of them."),
    FEATURE_AGE: ("under", "Requests by the age of the user's sequence, in seconds."),
    FEATURE_AGE_MS: ("", "Age of users' sequences, in milliseconds."),
    TABLE_AGE_MS: ("", "Age of the table of items at requests, in milliseconds."),
    TABLE_READS: ("", "Requests that read the table of items."),
    FEATURE_BIN: ("cell", "Values of a feature by their bin of the bundle's reference."),
    REFUSED: ("reason", "Calls that were refused for what they sent."),
}
# A family, the model as Triton names it, and the further label's value.
Key = tuple[str, str, str]
OTHER = "other"  # a label's value that nobody foresaw
REQUEST_STATUSES = (
    *("ok", "cold_user", "empty_sequence", "stale_sequence", "store_unavailable", OTHER),
)
ITEM_STATUSES = ("ok", "unknown_item", "no_attributes", "no_activity")
REFUSALS = ("shape", "content", "tensors", OTHER)
# Telling Triton of one took 0.1–0.2 ms: too long to do it with every request.
TOLD_EVERY_S = 1.0


@dataclass(frozen=True)
class Bounds:
    """The upper bounds of a histogram's buckets, in seconds."""

    seconds: tuple[float, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The buckets, as Prometheus names them."""
        return (*(f"{each:g}" for each in self.seconds), "+Inf")

    def under(self, seconds: float) -> str:
        """Return the bucket of a value."""
        return self.names[bisect_left(self.seconds, seconds)]


# Fine around 50 ms, which the objective names, and around what a request takes.
ANSWER_BOUNDS = Bounds(
    (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1)
)
AGE_BOUNDS = Bounds((1, 5, 30, 120, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400))


def keys(model: str, version: str, folder: Path) -> Iterator[Key]:
    """Yield every counter of the step in ``folder`` that is named ``model``.

    All are opened before the first request: tritonserver 2.51 dies of a metric that is made
    while a request runs.
    """
    parts = (FETCH_FEATURES, BEHAVIOR_ENCODER, CLICK_HEAD)
    for family in (PART_RUNS, PART_US):
        yield from ((family, step_name(part, version), "") for part in parts)
    labelled: dict[str, Iterable[str]] = {
        ANSWERS: ANSWER_BOUNDS.names,
        FEATURE_AGE: AGE_BOUNDS.names,
        REQUEST_STATUS: REQUEST_STATUSES,
        ITEM_STATUS: ITEM_STATUSES,
        REFUSED: REFUSALS,
        FEATURE_BIN: _cells(read_reference(folder)),
    }
    for family in FAMILIES.keys() - {PART_RUNS, PART_US}:
        yield from ((family, model, each) for each in labelled.get(family, ("",)))


def _cells(reference: Reference | None) -> Iterator[str]:
    for name, bins in reference.bins.items() if reference else ():
        yield from (f"{name}/{place}" for place in range(len(bins.shares)))


class ServingMetrics:
    """Adds up what was done, tells it once it has begun; ``stop`` tells the rest."""

    def __init__(
        self, increments: Mapping[Key, Callable[[float], None]], model: str
    ) -> None:
        """Tell ``increments`` by how much each has grown; ``model`` is the step's name."""
        self._increments, self._model = increments, model
        self._done, self._told = Counter[Key](), Counter[Key]()
        self.prepare: Callable[[], None] = lambda: None
        """What the thread does before it tells; it may ``add`` to families of its own."""
        self._cpu_since = time.process_time()
        self._stopped = threading.Event()
        self._teller = threading.Thread(target=self._run, name="ledger", daemon=True)

    def add(self, family: str, amount: float, label: str = "", model: str = "") -> None:
        """Count ``amount`` more in ``family``; of a label that nobody foresaw in OTHER."""
        key = family, model or self._model, label
        if key not in self._increments:
            key = family, model or self._model, OTHER
        self._done[key] += round(amount)

    def begin(self) -> None:
        """Tell from here on, and count CPU time: what loading took is no request's.

        tritonserver 2.51 dies of its next request if a step told a counter while it loaded.
        """
        self._cpu_since = time.process_time()
        self._teller.start()

    def stop(self) -> None:
        """End the thread when it has told all."""
        self._stopped.set()
        if self._teller.is_alive():
            self._teller.join()

    def _run(self) -> None:
        while not self._stopped.wait(TOLD_EVERY_S):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        try:
            self.prepare()
        except Exception:  # what serving costs is told, whatever cannot be compared
            LOG.exception("what was met is not compared with the reference")
        cpu_us = (time.process_time() - self._cpu_since) * 1e6
        self._done[CPU_US, self._model, ""] = round(cpu_us)
        for key, increment in self._increments.items():
            if new := (done := self._done[key]) - self._told[key]:
                increment(new)
                self._told[key] = done


def spending(told: ServingMetrics, version: str) -> Callable[[str, int, float], None]:
    """Return what counts a part under the name of the step that it is elsewhere."""

    def spend(part: str, runs: int, seconds: float) -> None:
        name = step_name(part, version)
        told.add(PART_RUNS, runs, model=name)
        told.add(PART_US, seconds * 1e6, model=name)

    return spend
