"""Requests → events in Kafka, as an ASGI application: ``POST /events``, ``GET /health``.

A request is answered when Kafka has acknowledged its events, or has not in time. Before
that it is refused where it is not allowed in, too large, or one too many.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, TypeVarTuple

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from srp4ctr import metrics
from srp4ctr.errors import MistakeError
from srp4ctr.streams.config import IntakeConfig
from srp4ctr.streams.events.codec import RejectedEvent
from srp4ctr.streams.events.schema import now_ms
from srp4ctr.streams.intake.delivery import Delivery
from srp4ctr.streams.intake.request_body import Judged, TooManyEventsError, read_body
from srp4ctr.streams.intake.tokens import Tokens

REQUESTS = metrics.counter("srp4ctr_intake_requests_total")
EVENTS = metrics.counter("srp4ctr_intake_events_total")
SECONDS = metrics.histogram("srp4ctr_intake_request_seconds")
_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")
_BODY_S = 10.0  # for the whole body to arrive: a slow one holds a place
_RETRY_S = 2  # the broker is looked at that often
_BUSY_RETRY_S = 1


class _Refused(HTTPException):
    """An answer without events; ``retry_s`` where the same request may succeed later."""

    def __init__(self, status: int, reason: str, retry_s: int = 0) -> None:
        headers = {"Retry-After": str(retry_s)} if retry_s else {}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, reason, headers)


def application(delivery: Delivery, tokens: Tokens, config: IntakeConfig) -> Starlette:
    """Return the application; ``delivery`` is its caller's to close."""
    intake = _Intake(delivery, tokens, config)
    routes = [
        Route("/events", intake.events, methods=["POST"]),
        Route("/health", intake.health, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _answer_refusal})


class _Intake:
    """The endpoints, and how many requests are in progress."""

    def __init__(self, delivery: Delivery, tokens: Tokens, config: IntakeConfig) -> None:
        self._delivery, self._tokens, self._config = delivery, tokens, config
        self._in_progress = 0
        self._threads: CapacityLimiter | None = None  # of the running loop

    async def health(self, request: Request) -> Response:
        """Return 200 if events can be published now, else 503."""
        if self._delivery.is_up:
            return JSONResponse({"status": "ok"})
        raise _Refused(503, "no broker answers", _RETRY_S)

    async def events(self, request: Request) -> Response:
        """Publish the events of the body; the answer names those that were not taken."""
        status = 500
        try:
            with SECONDS.time():
                answer = await self._answer(request)
            status = answer.status_code
        except HTTPException as refused:
            status = refused.status_code
            raise
        finally:
            REQUESTS.labels(status).inc()
        return answer

    async def _answer(self, request: Request) -> Response:
        if not self._tokens.admit(request.headers.get("authorization", "")):
            raise _Refused(401, "Authorization: Bearer TOKEN is missing or wrong")
        if self._in_progress >= self._config.max_requests:
            reason = (
                f"{self._in_progress} requests are in progress: the most that are taken"
            )
            raise _Refused(429, reason, _BUSY_RETRY_S)
        self._in_progress += 1
        try:
            body = await self._body(request)
            judged = await self._in_thread(self._read, body)
            backfill = _flag(request, "backfill")
            if not self._delivery.is_up:
                return _answer_of(judged, [False] * len(judged))
            return await self._in_thread(self._publish, judged, backfill)
        finally:
            self._in_progress -= 1

    async def _body(self, request: Request) -> bytes:
        most = self._config.max_body_bytes
        too_large = _Refused(413, f"the body is larger than {most} bytes: send several")
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_S):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise _Refused(408, f"the body did not arrive within {_BODY_S:g} s") from None
        except ClientDisconnect:
            raise _Refused(400, "the body ended too early") from None
        return bytes(body)

    def _read(self, body: bytes) -> list[Judged]:
        try:
            return read_body(body, now_ms(), self._config.max_events)
        except TooManyEventsError as error:
            raise _Refused(413, str(error)) from None
        except MistakeError as error:
            raise _Refused(400, str(error)) from None

    def _publish(self, judged: Sequence[Judged], backfill: bool) -> Response:
        events = [e.event for e in judged if not isinstance(e.event, RejectedEvent)]
        acknowledged = iter(self._delivery.publish(events, backfill=backfill))
        taken = [
            not isinstance(e.event, RejectedEvent) and next(acknowledged) for e in judged
        ]
        return _answer_of(judged, taken)

    async def _in_thread(
        self, call: Callable[[*_Arguments], _Result], *arguments: *_Arguments
    ) -> _Result:
        """Call in a thread of our own: as many as there may be requests."""
        if self._threads is None:
            self._threads = CapacityLimiter(self._config.max_requests)
        return await anyio.to_thread.run_sync(call, *arguments, limiter=self._threads)


def _answer_of(judged: Sequence[Judged], taken: Sequence[bool]) -> Response:
    """Return the answer: how many were taken, and what became of each other one."""
    counts = {"accepted": 0, "rejected": 0, "unacknowledged": 0}
    others = []
    for index, (each, is_taken) in enumerate(zip(judged, taken, strict=True)):
        row: dict[str, Any] = {"index": index, "event_id": each.event_id}
        if isinstance(each.event, RejectedEvent):
            outcome, reason = "rejected", each.event.reason.value
            others.append(
                row | {"status": outcome, "reason": reason, "detail": each.event.detail}
            )
        elif is_taken:
            outcome = reason = "accepted"
        else:
            outcome = reason = "unacknowledged"
            others.append(row | {"status": outcome})
        counts[outcome] += 1
        EVENTS.labels(reason).inc()
    headers = {"Retry-After": str(_RETRY_S)} if counts["unacknowledged"] else {}
    return JSONResponse({**counts, "events": others}, _status(counts), headers)


def _status(counts: dict[str, int]) -> int:
    if counts["unacknowledged"]:
        return 503
    if not counts["rejected"]:
        return 200
    return 207 if counts["accepted"] else 400


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise _Refused(400, f"{name} is true or false, not {value!r:.40}")
    return value == "true"


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
