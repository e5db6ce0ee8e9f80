"""``PageSources`` and a port → the page of the monitor on 127.0.0.1.

It serves the documents, their script and the playground's answers. The guard decides which
requests pass; this module routes them. The socket is bound before the address is printed:
a port that is in use is reported in one sentence, and the guard knows the number of a free
port.
"""

import json
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srp4ctr.errors import ArtifactError, MistakeError
from srp4ctr.listening import bound
from srp4ctr.monitoring.dashboards import NAMES
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web.page import DEFAULT_RANGE, RANGES_S, STATIC, Choice, Site
from srp4ctr.monitoring.web.playground import Playground
from srp4ctr.monitoring.web.request_guard import HEADERS, Guard

HOST = "127.0.0.1"  # only: every client of the page can publish events


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSources:
    """What the page shows."""

    prometheus_url: str
    """Empty: there is none."""
    exporters: Mapping[str, str] = field(default_factory=dict)
    """The address of each job's metrics, for their current values."""
    playground: Playground | None = None
    currency: str = ""
    """Of all prices; empty: they are written without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServer:
    """A page whose port is bound; requests wait until ``run``."""

    address: str
    _server: uvicorn.Server
    _listener: socket.socket

    def run(self) -> None:
        """Serve until ``stop``, or until the process gets SIGINT or SIGTERM.

        A signal takes its usual effect after the requests in progress.
        """
        with self._listener:
            self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self._server.should_exit = True


def bind_page(sources: PageSources, port: int) -> PageServer:
    """Return the page on ``port`` (0: any free one); ``MistakeError`` if it is taken."""
    open_already = f"Is the page already open at http://{HOST}:{port}?"
    advice = f". {open_already} Otherwise: srp4ctr monitor open --port 0"
    listener = bound(HOST, port, advice)
    port = listener.getsockname()[1]
    guard = Guard(port=port, token=secrets.token_urlsafe(24))
    config = uvicorn.Config(
        _application(sources, guard),
        log_config=None,  # as every process logs: srp4ctr/logs.py
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=1,  # a click may be waiting for its effect
    )
    return PageServer(
        address=f"http://{HOST}:{port}",
        _server=uvicorn.Server(config),
        _listener=listener,
    )


def _application(sources: PageSources, guard: Guard) -> ASGIApp:
    """Return the application; ``guard`` checks every request first."""
    endpoints = _Endpoints(sources, guard)
    routes = [
        Route("/", endpoints.dashboard),
        Route("/d/{name}", endpoints.dashboard),
        Route("/values", endpoints.values),
        Route("/playground", endpoints.playground),
        Route("/api/playground/offer", endpoints.offer),
        Route("/api/playground/user", endpoints.user),
        Route("/api/playground/rank", endpoints.rank, methods=["POST"]),
        Route("/api/playground/recommend", endpoints.recommend, methods=["POST"]),
        Route("/api/playground/click", endpoints.click, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers = {HTTPException: _not_found, Exception: _server_error}
    return _Guarded(Starlette(routes=routes, exception_handlers=handlers), guard)


class _Guarded:
    """Checks each request with the guard, and adds its headers to each response."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS:
                    headers[name] = value
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        given = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._guard.refusal(scope["method"], given)
        app = _error(refusal.reason, refusal.status) if refusal else self._app
        await app(scope, receive, send_guarded)


class _Endpoints:
    """The endpoints; those that are not async run in threads: they wait for a source."""

    def __init__(self, sources: PageSources, guard: Guard) -> None:
        self._sources, self._guard = sources, guard
        self._site = Site(
            prometheus=Prometheus(sources.prometheus_url),
            exporters=sources.exporters,
            currency=sources.currency,
            has_playground=sources.playground is not None,
        )

    def dashboard(self, request: Request) -> Response:
        name = request.path_params.get("name", NAMES[0])
        if name not in NAMES:
            return HTMLResponse(self._site.not_found(request.url.path), 404)
        return HTMLResponse(self._site.dashboard(name, _choice(request), time.time()))

    def values(self, request: Request) -> Response:
        return HTMLResponse(self._site.values())

    def playground(self, request: Request) -> Response:
        if self._sources.playground is None:
            return HTMLResponse(self._site.not_found(request.url.path), 404)
        return HTMLResponse(self._site.playground(self._guard.token))

    def offer(self, request: Request) -> Response:
        return self._play(lambda playground: playground.offer())

    def user(self, request: Request) -> Response:
        user_id = request.query_params.get("id", "")
        return self._play(lambda playground: playground.user(_an_id(user_id)))

    async def rank(self, request: Request) -> Response:
        """Rank candidates: ``{"user_id", "item_ids", "count", "draw"}``."""
        body = await _object(request)
        user_id, items = body.get("user_id"), body.get("item_ids", [])
        count, draw = body.get("count", 20), body.get("draw", 0)
        return await run_in_threadpool(
            self._play,
            lambda playground: playground.rank(
                _an_id(user_id), _ids(items), _a_number(count, 1, 1000), _a_number(draw)
            ),
        )

    async def recommend(self, request: Request) -> Response:
        """Recommend items: ``{"user_id", "count"}``."""
        body = await _object(request)
        user_id, count = body.get("user_id"), body.get("count", 20)
        return await run_in_threadpool(
            self._play,
            lambda playground: playground.recommend(
                _an_id(user_id), _a_number(count, 1, 1000)
            ),
        )

    async def click(self, request: Request) -> Response:
        """Click an item of a ranking that was shown: ``{"request_id", "item_id"}``."""
        body = await _object(request)
        request_id, item_id = body.get("request_id"), body.get("item_id")
        return await run_in_threadpool(
            self._play,
            lambda playground: playground.click(_an_id(request_id), _an_id(item_id)),
        )

    def _play(self, call: Any) -> Response:
        """Return the playground's answer, or its error."""
        if self._sources.playground is None:
            return _error("there is no playground here", 404)
        try:
            return JSONResponse(asdict(call(self._sources.playground)))
        except (ArtifactError, RuntimeError, OSError) as error:
            return _error(str(error), 503)
        except ValueError as error:
            return _error(str(error), 400)


def _choice(request: Request) -> Choice:
    """Return what the address says; an unknown range is the default."""
    name = request.query_params.get("range", DEFAULT_RANGE)
    versions = request.query_params.get("version", "").split(",")
    return Choice(
        range_name=name if name in RANGES_S else DEFAULT_RANGE,
        versions=tuple(dict.fromkeys(filter(None, versions))),
    )


async def _object(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.body())
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _an_id(given: object) -> str:
    if not isinstance(given, str) or not 0 < len(given.strip()) <= 256:
        raise MistakeError("an id has 1 to 256 characters")
    return given.strip()


def _ids(given: object) -> list[str]:
    if not isinstance(given, list):
        raise MistakeError("item_ids is a list")
    return list(dict.fromkeys(map(_an_id, given)))


def _a_number(given: object, least: int = 0, most: int = 1_000_000) -> int:
    if not isinstance(given, int) or not least <= given <= most:
        raise MistakeError(f"a number from {least} to {most} is needed, not {given!r}")
    return given


def _error(reason: str, status: int) -> Response:
    return JSONResponse({"error": reason}, status)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(f"{request.url.path}: {error.detail}", error.status_code)


async def _server_error(request: Request, error: Exception) -> Response:
    return _error(f"{type(error).__name__}; the terminal shows the traceback", 500)
