"""Calls and requests → Triton's counters: latency, cost, statuses, ages and drift.

Triton counts a step's runs and their time. What serving costs and which requests it gets
the step counts itself: under the model's name, and its parts under the names of the steps
that they are with three steps. A thread flushes the counts to Triton once a second.
"""

import ctypes
import logging
import re
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.bundles.drift_reference import (
    SCORE,
    Reference,
    best,
    read_reference,
    values_of,
)
from srp4ctr.features.tensors.schema import ItemStatus, RequestStatus
from srp4ctr.metrics import (
    AGE_BOUNDS,
    ANSWER_BOUNDS,
    ANSWERS,
    ANSWERS_US,
    CANDIDATES,
    CPU_US,
    FEATURE_AGE,
    FEATURE_AGE_MS,
    FEATURE_BIN,
    ITEM_STATUS,
    NEXT_ITEMS,
    PART_RUNS,
    PART_US,
    REFUSED,
    REQUEST_STATUS,
    SERVING_STEP,
    TABLE_AGE_MS,
    TABLE_READS,
    Spec,
)
from srp4ctr.triton_repo.model_names import (
    BEHAVIOR_ENCODER,
    CLICK_HEAD,
    FETCH_FEATURES,
    step_name,
)

LOG = logging.getLogger(__name__)
FAMILIES: Mapping[str, Spec] = {spec.name: spec for spec in SERVING_STEP}
# A family, the model as Triton names it, and the further label's value.
Key = tuple[str, str, str]
OTHER = "other"  # in place of a label's value that is not listed here
REQUEST_STATUSES = (*(each.value for each in RequestStatus), OTHER)
_ITEM_BITS = {
    "unknown_item": ItemStatus.UNKNOWN_ITEM,
    "no_attributes": ItemStatus.NO_ATTRIBUTES,
    "no_activity": ItemStatus.NO_ACTIVITY,
    "unavailable": ItemStatus.UNAVAILABLE,
}
# Of each status: what it is counted as.
_STATUS_NAMES = [
    [name for name, bit in _ITEM_BITS.items() if bits & bit] for bits in range(256)
]
_STATUS_NAMES[0] = ["ok"]
# Of users' next items: the first twenty candidates, a hundred, later ones; in none.
NEXT_PLACES = ("1-20", "21-100", "101-", "none")
REFUSALS = ("shape", "content", "tensors", OTHER)
PARTS = (FETCH_FEATURES, BEHAVIOR_ENCODER, CLICK_HEAD)
FLUSH_EVERY_S = 1.0  # one increment takes Triton 0.1–0.2 ms: too long for every request
SAMPLED = 4  # requests a second whose features are compared, which takes a millisecond each
_VERSION = re.compile(r"user=(?P<user_us>\d+)@|items=(?P<table_ms>\d+)")
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Bounds:
    """The upper bounds of a histogram's buckets, in seconds."""

    seconds: tuple[float, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The buckets, as Prometheus names them."""
        return (*(f"{second:g}" for second in self.seconds), "+Inf")

    def under(self, seconds: float) -> str:
        """Return the bucket of a value."""
        return self.names[bisect_left(self.seconds, seconds)]


ANSWER_BUCKETS, AGE_BUCKETS = Bounds(ANSWER_BOUNDS), Bounds(AGE_BOUNDS)


def keys(model: str, version: str, folder: Path) -> Iterator[Key]:
    """Yield every counter of the step in ``folder`` that is named ``model``.

    All are opened before the first request: tritonserver 2.51 crashes on a metric that is
    made while a request runs.
    """
    for family in (PART_RUNS, PART_US):
        yield from ((family, step_name(part, version), "") for part in PARTS)
    labelled: dict[str, Iterable[str]] = {
        ANSWERS: ANSWER_BUCKETS.names,
        FEATURE_AGE: AGE_BUCKETS.names,
        REQUEST_STATUS: REQUEST_STATUSES,
        ITEM_STATUS: ("ok", *_ITEM_BITS),
        REFUSED: REFUSALS,
        NEXT_ITEMS: NEXT_PLACES,
        FEATURE_BIN: _cells(read_reference(folder)),
    }
    for family in FAMILIES.keys() - {PART_RUNS, PART_US}:
        yield from ((family, model, each) for each in labelled.get(family, ("",)))


def keep_for_ever(*objects: object) -> None:
    """Let ``objects`` outlive Python: nothing destroys them.

    Where Python's exit destroys Triton's counters, they reach for memory that is gone, and
    the process crashes; where ``finalize`` does, they may wait for Triton for ever.
    """
    for each in objects:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def _cells(reference: Reference | None) -> Iterator[str]:
    for name, bins in reference.bins.items() if reference else ():
        yield from (f"{name}/{place}" for place in range(len(bins.shares)))


class ServingMetrics:
    """Adds up counts, and flushes them from ``start`` on; ``stop`` flushes the rest."""

    def __init__(
        self, increments: Mapping[Key, Callable[[float], None]], model: str
    ) -> None:
        """Flush to ``increments``, one for each key; ``model`` is the step's name."""
        self._increments, self._model = increments, model
        self._counts: dict[Key, float] = dict.fromkeys(increments, 0.0)
        self._flushed: dict[Key, int] = dict.fromkeys(increments, 0)
        self.before_flush: Callable[[], None] = lambda: None
        """Called by the thread; it may ``add`` to families that no other thread adds to."""
        self._cpu_since = time.process_time()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def add(self, family: str, amount: float, label: str = "", model: str = "") -> None:
        """Add ``amount`` to ``family``; a label that is not listed is counted as OTHER."""
        key = family, model or self._model, label
        if key not in self._increments:
            key = family, model or self._model, OTHER
        self._counts[key] += amount

    def start(self) -> None:
        """Flush from now on, and count CPU time without that of loading.

        tritonserver 2.51 crashes on its next request if a step that loads counts something.
        """
        self._cpu_since = time.process_time()
        self._thread.start()

    def stop(self) -> None:
        """End the thread after a last flush."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(FLUSH_EVERY_S):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Increment Triton's counters by what is new."""
        try:
            self.before_flush()
        except Exception:  # the other counts are right all the same
            LOG.exception("requests are not compared with the reference")
        cpu_us = (time.process_time() - self._cpu_since) * 1e6
        self._counts[CPU_US, self._model, ""] = round(cpu_us)
        for key, increment in self._increments.items():
            if new := (count := int(self._counts[key])) - self._flushed[key]:
                increment(new)
                self._flushed[key] = count


def part_counter(
    metrics: ServingMetrics, version: str
) -> Callable[[str, int, float], None]:
    """Return what counts a part's requests and seconds, under the name of its own step."""
    names = {part: step_name(part, version) for part in PARTS}

    def count_part(part: str, requests: int, seconds: float) -> None:
        metrics.add(PART_RUNS, requests, model=names[part])
        metrics.add(PART_US, seconds * 1e6, model=names[part])

    return count_part


@dataclass(slots=True, kw_only=True)
class RequestStats:
    """Counts the requests of one bundle; changes no answer."""

    metrics: ServingMetrics
    reference: Reference | None
    """None: the bundle has none, and nothing is compared."""
    _last: deque[Tensors] = field(default_factory=lambda: deque(maxlen=SAMPLED))

    def __post_init__(self) -> None:
        if self.reference is not None:
            self.metrics.before_flush = partial(self._compare_last, self.reference)

    def observe_requests(
        self, made: Tensors, times_ms: NDArray[np.int64], *, is_sample: bool = True
    ) -> None:
        """Count B answered requests: ``made`` are their tensors and notes.

        Only those of a sample may be compared with the reference.
        """
        for status in made["status"][:, 0].tolist():
            self.metrics.add(REQUEST_STATUS, 1, status)
        versions = made["feature_version"][:, 0].tolist()
        for version, at_ms in zip(versions, times_ms.tolist(), strict=True):
            self._observe_age(version, at_ms)
        is_scored = "click_probability" in made
        self._observe_items(made["item_status"], is_scored)
        if is_scored and is_sample:
            self._last.append(made)

    def observe_scores(self, probabilities: NDArray[np.float32]) -> None:
        """Count the candidates (B, N) that were scored; padding has NaN."""
        scored = np.count_nonzero(probabilities == probabilities)  # padding is NaN
        self.metrics.add(CANDIDATES, int(scored))

    def observe_calls(self, answers: Sequence[object], seconds: float) -> None:
        """Count calls that were answered or refused together; Triton counts failures."""
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        for reason in (each.reason for each in failed if hasattr(each, "reason")):
            self.metrics.add(REFUSED, 1, reason)
        if answered := len(answers) - len(failed):
            self.metrics.add(ANSWERS, answered, ANSWER_BUCKETS.under(seconds))
            self.metrics.add(ANSWERS_US, answered * seconds * 1e6)

    def _observe_age(self, version: str, at_ms: int) -> None:
        for found in _VERSION.finditer(version):
            if table_ms := found["table_ms"]:
                self.metrics.add(TABLE_AGE_MS, max(0, at_ms - int(table_ms)))
                self.metrics.add(TABLE_READS, 1)
                continue
            age_ms = max(0.0, at_ms - int(found["user_us"]) / 1000)
            self.metrics.add(FEATURE_AGE, 1, AGE_BUCKETS.under(age_ms / 1000))
            self.metrics.add(FEATURE_AGE_MS, age_ms)

    def _observe_items(self, status: NDArray[np.uint8], is_scored: bool) -> None:
        for bits, count in enumerate(np.bincount(status.ravel()).tolist()):
            if not count or bits == ItemStatus.PADDING:
                continue
            for name in _STATUS_NAMES[bits]:
                self.metrics.add(ITEM_STATUS, count, name)
            if not is_scored:  # with three steps another one scores them
                self.metrics.add(CANDIDATES, count)

    def _compare_last(self, reference: Reference) -> None:
        while self._last:
            self._compare(reference, self._last.popleft())

    def _compare(self, reference: Reference, made: Tensors) -> None:
        """Count the values of what was probably shown, in the reference's bins."""
        scores = made["click_probability"]
        shown = best(scores, reference.shown)
        is_known = (made["item_status"] & ItemStatus.UNKNOWN_ITEM) == 0
        values = dict(values_of(made, is_known, shown, reference.candidate_columns))
        values[SCORE] = scores[shown]
        for name, bins in reference.bins.items():
            if name in values:  # else of another release
                for place, count in enumerate(bins.count(values[name])):
                    if count:
                        self.metrics.add(FEATURE_BIN, count, f"{name}/{place}")
