"""What the step did and met → counters, told to Triton once a second by a thread.

Triton counts a step's runs and its time; what serving costs and what it meets the step
counts itself, each under the model's name, and its parts under the names of the steps that
they are elsewhere. The monitor reads all of it from Triton's page.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
Opened = Callable[[Key], Callable[[float], None]]
# Telling Triton of one took 0.1–0.2 ms: too long to do it with every request.
TOLD_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The upper bounds of a histogram's buckets, in seconds."""

    seconds: tuple[float, ...]

    def under(self, seconds: float) -> str:
        """Return the bucket of a value, as Prometheus names it."""
        return next((f"{each:g}" for each in self.seconds if seconds <= each), "+Inf")


# Fine around 50 ms, which the objective names, and around what a request takes.
ANSWER_BOUNDS = Bounds(
    (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1)
)
AGE_BOUNDS = Bounds((1, 5, 30, 120, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400))


class Ledger:
    """Adds up what was done; ``stop`` tells the rest.

    ``add`` is called by one thread.
    """

    def __init__(self, opened: Opened, model: str) -> None:
        """``opened`` returns how to tell of one counter; ``model`` is the step's name."""
        self._opened, self._model = opened, model
        self._done, self._told = Counter[Key](), Counter[Key]()
        self._increments: dict[Key, Callable[[float], None]] = {}
        self._cpu_since = time.process_time()
        self._stopped = threading.Event()
        self._teller = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._teller.start()

    def add(self, family: str, amount: float, label: str = "", model: str = "") -> None:
        """Count ``amount`` more in ``family``."""
        self._done[family, model or self._model, label] += round(amount)

    def mark_loaded(self) -> None:
        """Count CPU time from here on: what loading took is no request's."""
        self._cpu_since = time.process_time()

    def stop(self) -> None:
        """End the thread when it has told all."""
        self._stopped.set()
        self._teller.join()

    def _run(self) -> None:
        while not self._stopped.wait(TOLD_EVERY_S):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        cpu_us = (time.process_time() - self._cpu_since) * 1e6
        self._done[CPU_US, self._model, ""] = round(cpu_us)
        for key in list(self._done):  # the other thread may add a key meanwhile
            if new := (done := self._done[key]) - self._told[key]:
                if key not in self._increments:
                    self._increments[key] = self._opened(key)
                self._increments[key](new)
                self._told[key] = done
