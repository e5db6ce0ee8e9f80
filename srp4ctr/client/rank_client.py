"""A user and candidate items → their click probabilities, from a running Triton.

Or a user → the items to show. Any plain Triton client can rank; this one also retries, and
sends users to the canary.
"""

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from tritonclient.utils import InferenceServerException

from srp4ctr import metrics, retries, tracing
from srp4ctr.client import codec
from srp4ctr.client.assignment import Assignment
from srp4ctr.client.channel import connect, is_full, translated
from srp4ctr.client.messages import Ranking, RankRequest, RecommendRequest
from srp4ctr.errors import OutageError
from srp4ctr.features.tensors import schema
from srp4ctr.retries import CircuitBreaker
from srp4ctr.streams.events.experiments import Experiment
from srp4ctr.streams.events.pseudonymization import Pseudonyms
from srp4ctr.triton_repo.config import TlsConfig
from srp4ctr.triton_repo.model_names import (
    RANK_CLICKS,
    RANK_CLICKS_CANARY,
    RECOMMEND_ITEMS,
    STEP_FAILED,
)

_Request = TypeVar("_Request", RankRequest, RecommendRequest)
REQUEST_SECONDS = metrics.histogram("srp4ctr_rank_request_seconds")
REQUESTS = metrics.counter("srp4ctr_rank_requests_total")
_VERSIONS = 8  # that keep their series in REQUESTS: each promotion brings one more
_seen: OrderedDict[str, set[str]] = OrderedDict()  # version → outcomes, least recent first
_seen_lock = threading.Lock()
RETRIES = retries.RETRIES.labels("rank")
# CANCELLED: a server that shuts down drops its calls. Ranking twice changes nothing.
_TRANSIENT = tuple(
    f"StatusCode.{each}" for each in ("UNAVAILABLE", "CANCELLED", "INTERNAL", "UNKNOWN")
)
_LATE = "StatusCode.DEADLINE_EXCEEDED"
_INVALID = "StatusCode.INVALID_ARGUMENT"
_STARTING = "has no available versions"  # behind a balancer another server has some
_GONE = ("StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE")  # an ensemble that is unloaded
_PAUSES_S = (0.01, 0.03, 0.1, 0.25)  # before each retry; the last one repeats
_CANARY_REST_S = 5.0  # in which no call goes to a canary that did not answer
_FIRST_TRY = 1 / 3  # of the deadline: a process that crashed holds a call for a second


class RankClient:
    """Calls ``rank_clicks`` over gRPC; one connection, safe to keep open and to share.

    While there is a canary (``srp4ctr model promote --canary``), its share of the users,
    always the same ones, are sent to ``rank_clicks_canary``. Each ``Ranking`` has the
    experiment and the user's arm, which its impressions carry.
    """

    def __init__(
        self,
        address: str,
        *,
        canary: bool = True,
        tls: TlsConfig | None = None,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        """Connect to ``address``, host:port, at the first call; with ``tls``, encrypted.

        Without ``canary`` its users are in no experiment. With ``pseudonyms``, the
        publisher's, Triton receives no user's id. Raises ``MistakeError`` for a certificate
        or key file that cannot be read.
        """
        self._canary = CircuitBreaker[Any](failures=1, rest_s=_CANARY_REST_S)
        self._client = connect(address, tls)
        self._assignment = Assignment(self._client) if canary else None
        self._pseudonyms = pseudonyms
        self._budget = retries.RetryBudget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def rank(  # noqa: PLR0913  # a request's own fields, by name
        self,
        user_id: str,
        item_ids: Sequence[str],
        *,
        request_time_ms: int | None = None,
        context: str | None = None,
        request_id: str | None = None,
        utc_offset_minutes: int | None = None,
        numbers: Mapping[str, Sequence[float | None]] | None = None,
        deadline_s: float = 1.0,
    ) -> Ranking:
        """Return the scores of ``item_ids`` for ``user_id``: see ``rank_many``.

        ``numbers`` are of the items, by name, one of each: ``{"price": [80, 95]}``.
        """
        request = RankRequest(
            user_id=user_id,
            item_ids=item_ids,
            request_time_ms=request_time_ms,
            context=context,
            request_id=request_id,
            utc_offset_minutes=utc_offset_minutes,
            numbers=numbers or {},
        )
        return self.rank_many([request], deadline_s=deadline_s)[0]

    def rank_many(
        self, requests: Sequence[RankRequest], *, deadline_s: float = 1.0
    ) -> tuple[Ranking, ...]:
        """Return the rankings of ``requests``, ``triton.max_batch_size`` of them at most.

        One call, or two where some of the users are the canary's. Raises ``MistakeError``
        for what a caller can fix, ``OutageError`` if there was no answer by the deadline.
        What failed for no fault of the request is retried until then: reading twice changes
        nothing. A call that is late by a third of the deadline, or was refused by a full
        server, is retried once, and at most a tenth of the calls are: an overloaded server
        must not get more load.
        """
        if not requests:
            return ()
        ends = retries.end_of(deadline_s)
        experiment = self._experiment(ends)
        if experiment is None:
            return self._rank(requests, ends)
        arms, name = (
            [experiment.arm(request.user_id) for request in requests],
            experiment.name,
        )
        rankings: dict[int, Ranking] = {}
        for arm in sorted(set(arms)):
            places = [place for place, each in enumerate(arms) if each == arm]
            group = [requests[place] for place in places]
            is_canary = arm == experiment.canary and not self._canary.is_open
            made = self._rank(group, ends, to_canary=is_canary)
            for place, ranking in zip(places, made, strict=True):
                rankings[place] = replace(ranking, experiment=name, arm=arm)
        return tuple(rankings[place] for place in range(len(requests)))

    def recommend(
        self, user_id: str, count: int = 20, *, deadline_s: float = 1.0, **options: Any
    ) -> Ranking:
        """Return up to ``count`` items for ``user_id`` in the order in which to show them.

        ``options`` are the other fields of ``RecommendRequest``: ``where={"genre":
        "drama"}``, ``exclude="shown"``, ``request_id``, … Raises as ``rank_many`` does;
        ``MistakeError`` also where the bundle that serves cannot recommend.
        """
        ends = retries.end_of(deadline_s)
        request = RecommendRequest(user_id=user_id, count=count, **options)
        specs = schema.USER_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
        tensors = codec.recommend_tensors(self._pseudonymized(request))
        inputs = codec.infer_inputs(specs + schema.RECOMMEND_INPUTS, tensors)
        with self._counted("RankClient.recommend", 1):
            answer = self._infer(inputs, ends, RECOMMEND_ITEMS)
        ranking = codec.recommendation(request, answer.as_numpy)
        _count(ranking.model_version, ranking.status)
        return ranking

    def _experiment(self, ends: float) -> Experiment | None:
        if self._assignment is None:
            return None
        return self._assignment.current(_FIRST_TRY * _left_s(ends))

    def _rank(
        self, requests: Sequence[RankRequest], ends: float, *, to_canary: bool = False
    ) -> tuple[Ranking, ...]:
        specs = (
            schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + schema.NUMBER_INPUTS
        )
        tensors = codec.request_tensors(list(map(self._pseudonymized, requests)))
        inputs = codec.infer_inputs(specs, tensors)
        with self._counted("RankClient.rank", len(requests)):
            answer = self._from_canary(inputs, ends) if to_canary else None
            if answer is None:
                answer = self._infer(inputs, ends)
        rankings = codec.rankings(requests, answer.as_numpy)
        for ranking in rankings:
            _count(ranking.model_version, ranking.status)
        return rankings

    @contextmanager
    def _counted(self, name: str, requests: int) -> Iterator[None]:
        """Trace and time a call, and translate its error."""
        started = time.perf_counter()
        try:
            with tracing.span(name, requests=requests):
                yield
        except InferenceServerException as error:
            invalid = error.status() == _INVALID
            REQUESTS.labels("", "refused" if invalid else "failed").inc(requests)
            raise translated(error) from error
        finally:
            REQUEST_SECONDS.observe(time.perf_counter() - started)

    def _pseudonymized(self, request: _Request) -> _Request:
        if self._pseudonyms is None:
            return request
        return replace(request, user_id=self._pseudonyms.of(request.user_id))

    def _from_canary(self, inputs: Sequence[Any], ends: float) -> Any:
        """Return the canary's answer, None where there is no canary or it fails.

        One that is gone or late rests, and costs no retry, which would fail its users'
        calls in the end. Where it is full, the server is: its load must not double.
        """

        def call() -> Any:
            try:
                return self._call(RANK_CLICKS_CANARY, inputs, _FIRST_TRY * _left_s(ends))
            except InferenceServerException as error:
                is_refused = is_full(error) and not self._budget.spend()
                if is_refused or error.status() == _INVALID:
                    raise
                if error.status() in (*_GONE, _LATE) and not is_full(error):
                    raise OutageError("the canary does not answer") from error
                return None

        if (answer := self._canary(call)) is None:
            RETRIES.inc()
        return answer

    def _infer(self, inputs: Sequence[Any], ends: float, model: str = RANK_CLICKS) -> Any:
        pauses_s = itertools.chain(_PAUSES_S, itertools.repeat(_PAUSES_S[-1]))
        share = _FIRST_TRY if self._budget.is_left else 1.0
        while True:
            try:
                answer = self._call(model, inputs, share * _left_s(ends))
            except InferenceServerException as error:
                pause_s = 0.0 if error.status() == _LATE else next(pauses_s)
                if time.monotonic() + pause_s >= ends or not self._may_retry(error):
                    raise
            else:
                self._budget.earn()
                return answer
            RETRIES.inc()
            time.sleep(pause_s)
            share = 1.0

    def _may_retry(self, error: InferenceServerException) -> bool:
        """Return whether to retry the call; what may well fail again has a budget."""
        has_failed = STEP_FAILED in str(error.message())
        if error.status() == _LATE or is_full(error) or has_failed:
            return self._budget.spend()
        return error.status() in _TRANSIENT or _STARTING in str(error.message())

    def _call(self, model: str, inputs: Sequence[Any], timeout_s: float) -> Any:
        # A call that was queued for half of its time would be late.
        wait_us = round(timeout_s * 1e6 / 2)
        traceparent = tracing.traceparent()
        return self._client.infer(
            model,
            inputs,
            client_timeout=timeout_s,
            timeout=wait_us,
            parameters={tracing.HEADER: traceparent} if traceparent else None,
        )


def _left_s(ends: float) -> float:
    return max(ends - time.monotonic(), _PAUSES_S[0])


def _count(version: str, outcome: str) -> None:
    """Count an answered request; drop the series of a version that was long not seen."""
    with _seen_lock:
        _seen.setdefault(version, set()).add(outcome)
        _seen.move_to_end(version)
        REQUESTS.labels(version, outcome).inc()
        if len(_seen) > _VERSIONS:
            oldest, outcomes = _seen.popitem(last=False)
            for each in outcomes:
                REQUESTS.remove(oldest, each)
