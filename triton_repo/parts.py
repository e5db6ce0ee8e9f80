"""What the one step did, part by part → counters, told once a second by a thread.

Triton counts a step's runs and time by itself; of a step that does the work of three, each
part is counted here under the name of the step that does it elsewhere.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from triton_repo.pbtxt import BEHAVIOR_ENCODER, CLICK_HEAD, FETCH_FEATURES

# A part, and of what: RUNS, the requests that it worked on, or MICROSECONDS.
Key = tuple[str, str]
RUNS, MICROSECONDS = KINDS = "runs", "us"
KEYS: tuple[Key, ...] = tuple(
    (part, kind)
    for part in (FETCH_FEATURES, BEHAVIOR_ENCODER, CLICK_HEAD)
    for kind in KINDS
)
# Telling Triton of one took 0.1–0.2 ms: too long to do it with every request.
TOLD_EVERY_S = 1.0


class Parts:
    """Adds up what parts did; ``stop`` tells the rest."""

    def __init__(self, counters: Mapping[Key, Callable[[float], None]]) -> None:
        """Tell ``counters`` (KEYS) by how much each has grown."""
        self._counters = counters
        self._done, self._told = Counter[Key](), Counter[Key]()
        self._stopped = threading.Event()
        self._teller = threading.Thread(target=self._run, name="parts", daemon=True)
        self._teller.start()

    def add(self, part: str, runs: int, seconds: float) -> None:
        """Count ``runs`` of ``part`` that took ``seconds`` together."""
        self._done[part, RUNS] += runs
        self._done[part, MICROSECONDS] += round(seconds * 1e6)

    def stop(self) -> None:
        """End the thread when it has told all."""
        self._stopped.set()
        self._teller.join()

    def _run(self) -> None:
        while not self._stopped.wait(TOLD_EVERY_S):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        for key, increment in self._counters.items():
            if new := (done := self._done[key]) - self._told[key]:
                increment(new)
                self._told[key] = done
