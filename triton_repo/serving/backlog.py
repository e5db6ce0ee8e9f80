"""Calls in Triton's queue of a step → which of them have waited for too long.

Triton's own limits of a queue are not used. With any of them its batcher starts no batch
ahead, and what is queued while all processes are busy waits for the next call to come, or
for half a second (core, ``DynamicBatchScheduler::WaitForPayloadSlotAvailable``).
"""

import http.client
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence

LOG = logging.getLogger(__name__)
METRICS_PORT = "SRP4CTR_TRITON_METRICS_PORT"
"""The environment's name of the server's own port of metrics, by default Triton's."""
_LOOK_S = 0.05  # to read Triton's metrics takes some milliseconds
_BUSY = 0.7
_NEWEST = 0.2  # the weight of the last batch in the time that a call takes
_TIMEOUT_S = 0.25


class Backlog:
    """Estimates how long a call waits for the processes of a step; one per process.

    Nothing is known, and no call late, unless this process was busy for 70 % of the last
    50 ms: only then the calls that wait are counted.
    """

    def __init__(
        self,
        count_waiting: Callable[[], float],
        processes: int,
        max_wait_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._count_waiting = count_waiting
        self._processes = processes
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._waiting, self._more_per_s = 0.0, 0.0
        self._call_s = 0.0
        self._busy_s = 0.0
        self._looked_at = self._began = clock()

    def begin(self, limits_s: Sequence[float]) -> list[bool]:
        """Return which of the calls that are to be answered now have waited too long.

        Each has its own limit in seconds (0: none). By Little's law a call waits for as
        long as it takes to answer those in the queue; each process refuses its share of
        those too many, and the first in the queue are those that have waited longest.
        """
        began_before, self._began = self._began, self._clock()
        self._waiting += self._more_per_s * (self._began - began_before)
        self._look()
        late = []
        for limit_s in limits_s:
            wait_s = self._waiting * self._call_s / self._processes
            late.append(wait_s > min(limit_s or self._max_wait_s, self._max_wait_s))
            if late[-1]:
                self._waiting = max(0.0, self._waiting - self._processes)
        self._began = self._clock()
        return late

    def end(self, answered: int) -> None:
        """Note that ``answered`` of the calls have been answered, not refused."""
        took_s = self._clock() - self._began
        self._busy_s += took_s
        if answered:
            each_s = took_s / answered
            weight = _NEWEST if self._call_s else 1.0
            self._call_s += weight * (each_s - self._call_s)

    def _look(self) -> None:
        now = self._clock()
        since_s = now - self._looked_at
        if since_s < _LOOK_S:
            return
        if self._busy_s > _BUSY * since_s:
            waiting = self._count_waiting()
            # Those more than were expected: as many are until the next look.
            self._more_per_s += (waiting - self._waiting) / since_s
            self._more_per_s = max(0.0, self._more_per_s)
            self._waiting = waiting
        else:
            self._waiting = self._more_per_s = 0.0
        self._looked_at, self._busy_s = self._clock(), 0.0


class WaitingCalls:
    """Counts the calls that wait for step ``model``: Triton's own gauge.

    Where Triton's metrics cannot be read, no call counts as waiting, and a warning says so.
    """

    def __init__(self, model: str, environment: Mapping[str, str]) -> None:
        port = int(environment.get(METRICS_PORT) or 8002)
        self._server = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        labels = rf'{{model="{re.escape(model)}",version="\d+"}}'
        self._line = re.compile(
            rf"^nv_inference_pending_request_count{labels} (\S+)$".encode(), re.MULTILINE
        )
        self._has_warned = False

    def __call__(self) -> float:
        """Return how many calls wait; 0 where it is not known."""
        try:
            self._server.request("GET", "/metrics")
            match = self._line.search(self._server.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            self._server.close()
            if not self._has_warned:
                LOG.warning("no call is refused for waiting: Triton's metrics: %r", error)
                self._has_warned = True
            return 0.0
        return float(match[1]) if match else 0.0
