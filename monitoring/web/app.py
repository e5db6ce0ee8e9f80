"""``PageSources`` and a port → the page of the monitor on 127.0.0.1.

It serves the script, the dashboards, Prometheus's answers and the playground. The guard
decides which requests pass; this module routes them. The socket is bound before the address
is printed: a port that is in use is reported in one sentence, and the guard knows the
number of a free port.
"""

import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.listening import bound
from srp4ctr.monitoring.dashboards import FOLDER, load_boards
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web import current_values, panel_query
from srp4ctr.monitoring.web.playground import Playground
from srp4ctr.monitoring.web.request_guard import HEADERS, Guard

HOST = "127.0.0.1"  # only: every client of the page can publish events
STATIC = Path(__file__).with_name("static")
_VIEWS = ("/", "/d/{name}", "/playground", "/values")  # all drawn by the one script
_FOR_EVER = "public, max-age=31536000, immutable"  # the address names the version


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSources:
    """What the page shows."""

    prometheus_url: str
    """Empty: there is none."""
    exporters: Mapping[str, str] = field(default_factory=dict)
    """The address of each job's metrics, for their current values."""
    playground: Playground | None = None
    dashboards: Path = FOLDER
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
    plotly = f"/vendor/plotly-{version('plotly')}.js"
    routes = [
        *(Route(path, _index) for path in _VIEWS),
        Route(plotly, _plotly),
        Route("/api/start", lambda request: endpoints.start(plotly)),
        Route("/api/dashboards/{name}", endpoints.dashboard),
        Route("/api/prometheus/query", endpoints.query),
        Route("/api/prometheus/query_range", endpoints.query_range),
        Route("/api/values", endpoints.values),
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
        self._prometheus = Prometheus(sources.prometheus_url)

    def start(self, plotly: str) -> Response:
        """Return what the script needs first, with the token of this start."""
        boards = load_boards(self._sources.dashboards)
        return JSONResponse(
            {
                "token": self._guard.token,
                "plotly": plotly,
                "dashboards": [{"name": n, "title": b["title"]} for n, b in boards.items()],
                "prometheus": self._prometheus.url,
                "currency": self._sources.currency,
                "problem": self._prometheus.problem(),
                "playground": self._sources.playground is not None,
            }
        )

    def dashboard(self, request: Request) -> Response:
        name = request.path_params["name"]
        boards = load_boards(self._sources.dashboards)
        if name not in boards:
            return _error(f"there is no dashboard {name!r}", 404)
        return JSONResponse(boards[name])

    def query(self, request: Request) -> Response:
        return self._query("query", panel_query.instant_parameters, request)

    def query_range(self, request: Request) -> Response:
        return self._query("query_range", panel_query.range_parameters, request)

    def _query(self, call: str, parameters: Any, request: Request) -> Response:
        wait_s, most = panel_query.TIMEOUT_S + 1, panel_query.MAX_ANSWER_BYTES
        try:
            given = parameters(request.query_params)
            answer = self._prometheus.fetch(call, given, wait_s, most)
        except OutageError as error:
            return _error(f"Prometheus does not answer: {error}", 503)
        except ValueError as error:
            return _error(str(error), 400)
        return Response(answer.body, answer.status, media_type="application/json")

    def values(self, request: Request) -> Response:
        pages = current_values.read_exporters(self._sources.exporters)
        return JSONResponse([asdict(page) for page in pages])

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


async def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _plotly(request: Request) -> Response:
    """Serve the chart library from plotly's wheel."""
    spec = find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    script = Path(spec.origin).with_name("package_data") / "plotly.min.js"
    return FileResponse(script, headers={"cache-control": _FOR_EVER})


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
