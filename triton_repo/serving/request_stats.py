"""What a request met → counts in the ledger: statuses, ages, and how features are spread.

In: a request's answer with all that it was made from. Nothing here changes an answer.
How features are spread takes a millisecond a request: that is asked of the last few of each
second, by the ledger's thread.
"""

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.bundles.drift_reference import SCORE, Reference, best, values_of
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.triton_repo.serving import serving_metrics as ledger
from srp4ctr.triton_repo.serving.serving_metrics import ServingMetrics

SAMPLED = 4  # requests a second
_BITS = {
    "unknown_item": ItemStatus.UNKNOWN_ITEM,
    "no_attributes": ItemStatus.NO_ATTRIBUTES,
    "no_activity": ItemStatus.NO_ACTIVITY,
}
_VERSION = re.compile(r"sequence=(?P<user_us>\d+)@|items=(?P<table_ms>\d+)")
Tensors = Mapping[str, NDArray[Any]]


@dataclass(slots=True, kw_only=True)
class RequestStats:
    """Counts what the requests of one bundle met."""

    ledger: ServingMetrics
    reference: Reference | None
    """None: the bundle is older than references, and nothing is compared."""
    _last: deque[Tensors] = field(default_factory=lambda: deque(maxlen=SAMPLED))

    def __post_init__(self) -> None:
        if self.reference is not None:
            self.ledger.prepare = partial(self._compare_last, self.reference)

    def met(self, made: Tensors, times_ms: NDArray[np.int64]) -> None:
        """Count an answer of B requests: ``made`` are its tensors and notes."""
        for status in made["status"][:, 0].tolist():
            self.ledger.add(ledger.REQUEST_STATUS, 1, status)
        for version, at_ms in zip(made["feature_version"][:, 0], times_ms, strict=True):
            self._age(version, int(at_ms))
        is_scored = "click_probability" in made
        self._items(made["item_status"], is_scored)
        if is_scored:
            self._last.append(made)

    def scored(self, probabilities: NDArray[np.float32]) -> None:
        """Count the candidates (B, N) that were scored: NaN is padding's."""
        self.ledger.add(ledger.CANDIDATES, int(np.count_nonzero(~np.isnan(probabilities))))

    def answered(self, answers: Sequence[object], seconds: float) -> None:
        """Count calls that were answered or refused together."""
        refused = [each for each in answers if isinstance(each, ValueError)]
        for each in refused:
            self.ledger.add(ledger.REFUSED, 1, getattr(each, "reason", "other"))
        if answered := len(answers) - len(refused):
            under = ledger.ANSWER_BOUNDS.under(seconds)
            self.ledger.add(ledger.ANSWERS, answered, under)
            self.ledger.add(ledger.ANSWERS_US, answered * seconds * 1e6)

    def _age(self, version: str, at_ms: int) -> None:
        for found in _VERSION.finditer(version):
            if table_ms := found["table_ms"]:
                self.ledger.add(ledger.TABLE_AGE_MS, max(0, at_ms - int(table_ms)))
                self.ledger.add(ledger.TABLE_READS, 1)
                continue
            age_ms = max(0.0, at_ms - int(found["user_us"]) / 1000)
            self.ledger.add(ledger.FEATURE_AGE, 1, ledger.AGE_BOUNDS.under(age_ms / 1000))
            self.ledger.add(ledger.FEATURE_AGE_MS, age_ms)

    def _items(self, status: NDArray[np.uint8], is_scored: bool) -> None:
        present = status[status != ItemStatus.PADDING]
        if not is_scored:  # another step scores them, on a GPU
            self.ledger.add(ledger.CANDIDATES, len(present))
        counts = {n: int(np.count_nonzero(present & bit)) for n, bit in _BITS.items()}
        counts["ok"] = int(np.count_nonzero(present == 0))
        for name, count in counts.items():
            if count:
                self.ledger.add(ledger.ITEM_STATUS, count, name)

    def _compare_last(self, reference: Reference) -> None:
        while self._last:
            self._compare(reference, self._last.popleft())

    def _compare(self, reference: Reference, made: Tensors) -> None:
        """Count the values of what was probably shown, in the reference's bins."""
        scores = made["click_probability"]
        shown = best(scores, reference.shown)
        is_known = (made["item_status"] & ItemStatus.UNKNOWN_ITEM) == 0
        spread = dict(values_of(made, is_known, shown))
        spread[SCORE] = scores[shown]
        for name, bins in reference.bins.items():
            if name in spread:  # else of another release
                for place, count in enumerate(bins.count(spread[name])):
                    if count:
                        self.ledger.add(ledger.FEATURE_BIN, count, f"{name}/{place}")
