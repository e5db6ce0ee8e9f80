"""The one retry policy, and the one circuit breaker: what may pass is tried again.

``tenacity`` repeats and waits; what is worth repeating, how long the pauses are, and that
each retry is counted and logged, is decided here for every process.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import tenacity

from srp4ctr import metrics
from srp4ctr.errors import MistakeError, OutageError

RETRIES = metrics.counter("srp4ctr_retries_total")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_REPORT_AGAIN_S = 60.0
_LONGEST_DEADLINE_S = 86_400.0

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


def end_of(deadline_s: float) -> float:
    """Return when, by ``time.monotonic``, a call ends that begins now."""
    if not deadline_s <= _LONGEST_DEADLINE_S:  # nor NaN
        raise MistakeError(
            f"deadline_s is {deadline_s}; at most {_LONGEST_DEADLINE_S:g}, a day"
        )
    return time.monotonic() + deadline_s


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed later: servers come back, bugs do not.

    An ``OutageError`` or another ``ConnectionError``, a timeout, or an error of a Kafka
    client that says that it is retriable.
    """
    retriable = getattr(error, "retriable", False) is True
    return retriable or isinstance(error, ConnectionError | TimeoutError)


def retry(
    operation: str,
    call: Callable[[], _Result],
    *,
    attempts: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], Any] = time.sleep,
) -> _Result:
    """Return ``call()``, repeated with growing pauses for as long as ``may_pass``.

    ``operation`` names it in the log and in ``srp4ctr_retries_total``: few, fixed names.
    Raises the last error after ``attempts`` calls (0: any number), or once
    ``should_stop`` returns true; any error that will not pass at once.
    """
    arguments = _policy(operation, attempts, should_stop)
    return tenacity.Retrying(sleep=sleep, **arguments)(call)


def retry_at_once(operation: str, call: Callable[[], _Result]) -> _Result:
    """Return ``call()``, made once more without a pause if it ``may_pass``.

    For frequent calls with a waiting caller: without a failure it costs nothing.
    """
    try:
        return call()
    except Exception as error:
        if not may_pass(error):
            raise
        RETRIES.labels(operation).inc()
        _log.warning("%s: again at once: %r", operation, error)
    return call()


async def retry_async(
    operation: str,
    call: Callable[[], Awaitable[_Result]],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> _Result:
    """Return ``await call()``, repeated as ``retry`` does."""
    arguments = _policy(operation, 0, should_stop)
    return await tenacity.AsyncRetrying(sleep=sleep, **arguments)(call)


def retry_during_outage(
    call: Callable[[], _Result],
    report: Callable[[str], None],
    sleep: Callable[[float], Any] = time.sleep,
) -> _Result:
    """Return what ``call`` returns, repeated for as long as it raises ``OutageError``.

    For processes that start together with the servers that they need, as containers do.
    ``report`` gets the reason when it changes, and once a minute. Any other error, as a
    refused password, is raised at once.
    """
    reported, reported_at_s = "", 0.0

    def explain(state: tenacity.RetryCallState) -> None:
        nonlocal reported, reported_at_s
        reason, now_s = f"waiting: {_error_of(state)}", state.idle_for
        if reason != reported or now_s - reported_at_s >= _REPORT_AGAIN_S:
            reported, reported_at_s = reason, now_s
            report(reason)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(OutageError),
        wait=tenacity.wait_exponential(multiplier=1.0, max=15.0),
        before_sleep=explain,
        sleep=sleep,
        reraise=True,
    )(call)


def _policy(
    operation: str, attempts: int, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    def count(state: tenacity.RetryCallState) -> None:
        RETRIES.labels(operation).inc()
        pause_s = state.next_action.sleep if state.next_action else 0.0
        _log.warning("%s: again in %.1f s: %r", operation, pause_s, _error_of(state))

    def is_over(state: tenacity.RetryCallState) -> bool:
        return should_stop() or 0 < attempts <= state.attempt_number

    return {
        "retry": tenacity.retry_if_exception(may_pass),
        # Full jitter: many workers whose server comes back do not return as one.
        "wait": tenacity.wait_random_exponential(
            multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S, min=FIRST_PAUSE_S
        ),
        "stop": is_over,
        "before_sleep": count,
        "reraise": True,
    }


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


class CircuitBreaker(Generic[_Result]):
    """Makes a call, and none for a while after several outages in a row.

    For calls with a waiting caller: with a server that hangs, each call would otherwise
    wait until its timeout.
    """

    def __init__(
        self,
        failures: int = 3,
        rest_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures, self._rest_s, self._clock = failures, rest_s, clock
        self._failed = 0
        self._open_until_s = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether no call is made now."""
        return self._clock() < self._open_until_s

    def __call__(self, call: Callable[[], _Result]) -> _Result | None:
        """Return ``call()``, or None after an outage and while the breaker is open."""
        if self.is_open:
            return None
        try:
            found = call()
        except (ConnectionError, TimeoutError):
            self._failed += 1
            if self._failed >= self._failures:
                self._open_until_s = self._clock() + self._rest_s
            return None
        self._failed = 0
        return found


class RetryBudget:
    """Allows a tenth of the calls to be retried, so that retries cannot double a load.

    The rule of gRPC's retry throttling: proposal A6.
    """

    _MOST, _EARNED = 10.0, 0.1

    def __init__(self) -> None:
        self._tokens = self._MOST
        self._lock = threading.Lock()

    @property
    def is_left(self) -> bool:
        """Whether a call may be retried now."""
        return self._tokens >= 1.0

    def earn(self) -> None:
        """Count a call that was answered."""
        with self._lock:
            self._tokens = min(self._tokens + self._EARNED, self._MOST)

    def spend(self) -> bool:
        """Take one retry, and return whether there was one."""
        with self._lock:
            self._tokens -= (is_left := self.is_left)
        return is_left
