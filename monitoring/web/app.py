"""The page's web application: files, dashboards, Prometheus's answers, the playground.

In: ``PageSources`` and a ``Guard``. Out: an ASGI application. It decides nothing: the
guard says who may ask, the modules beside it what they are told.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srp4ctr.monitoring.web import boards, current_values
from srp4ctr.monitoring.web.playground import Playground
from srp4ctr.monitoring.web.prometheus_api import PrometheusApi, instant_query, range_query
from srp4ctr.monitoring.web.request_guard import HEADERS, Guard

STATIC = Path(__file__).with_name("static")
_VIEWS = ("/", "/d/{name}", "/playground", "/values")  # all drawn by the one script
_FOR_EVER = "public, max-age=31536000, immutable"  # the address names the version


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSources:
    """Where the page looks."""

    prometheus_url: str
    """"": there is none."""
    exporters: Mapping[str, str] = field(default_factory=dict)
    """The metrics' address of each job, for what they say without Prometheus."""
    playground: Playground | None = None
    dashboards: Path = boards.FOLDER


def application(sources: PageSources, guard: Guard) -> ASGIApp:
    """Return the application, every request seen by ``guard`` first."""
    answers = _Answers(sources, guard)
    plotly = f"/vendor/plotly-{version('plotly')}.js"
    routes = [
        *(Route(path, _index) for path in _VIEWS),
        Route(plotly, _plotly),
        Route("/api/start", lambda request: answers.start(plotly)),
        Route("/api/dashboards/{name}", answers.dashboard),
        Route("/api/prometheus/query", answers.query),
        Route("/api/prometheus/query_range", answers.query_range),
        Route("/api/values", answers.values),
        Route("/api/playground/offer", answers.offer),
        Route("/api/playground/user", answers.user),
        Route("/api/playground/rank", answers.rank, methods=["POST"]),
        Route("/api/playground/click", answers.click, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    told = {HTTPException: _not_here, Exception: _broken}
    return _Guarded(Starlette(routes=routes, exception_handlers=told), guard)


class _Guarded:
    """Refuses what the guard refuses, and gives each answer the guard's headers."""

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

        asked = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._guard.refusal(scope["method"], asked)
        app = _sentence(refusal.reason, refusal.status) if refusal else self._app
        await app(scope, receive, send_guarded)


class _Answers:
    """The endpoints; the plain functions run in threads, as their sources may be slow."""

    def __init__(self, sources: PageSources, guard: Guard) -> None:
        self._sources, self._guard = sources, guard
        self._prometheus = PrometheusApi(sources.prometheus_url)

    def start(self, plotly: str) -> Response:
        """What the script needs first: where things are, and the token of this start."""
        return JSONResponse(
            {
                "token": self._guard.token,
                "plotly": plotly,
                "dashboards": [asdict(board) for board in self._boards()],
                "prometheus": self._prometheus.url,
                "trouble": self._prometheus.trouble(),
                "playground": self._sources.playground is not None,
            }
        )

    def _boards(self) -> Sequence[boards.Board]:
        return boards.boards(self._sources.dashboards)

    def dashboard(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            return JSONResponse(boards.board(name, self._sources.dashboards))
        except LookupError as error:
            return _sentence(error.args[0], 404)

    def query(self, request: Request) -> Response:
        return self._ask(instant_query, request)

    def query_range(self, request: Request) -> Response:
        return self._ask(range_query, request)

    def _ask(self, read: Any, request: Request) -> Response:
        try:
            answer = self._prometheus.ask(read(request.query_params))
        except ConnectionError as error:
            return _sentence(f"Prometheus does not answer: {error}", 503)
        except ValueError as error:
            return _sentence(str(error), 400)
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
        asked = await _object(request)
        user_id, items = asked.get("user_id"), asked.get("item_ids", [])
        count, draw = asked.get("count", 20), asked.get("draw", 0)
        return await run_in_threadpool(
            self._play,
            lambda playground: playground.rank(
                _an_id(user_id), _ids(items), _a_number(count, 1, 1000), _a_number(draw)
            ),
        )

    async def click(self, request: Request) -> Response:
        """Click an item of a ranking that was shown: ``{"request_id", "item_id"}``."""
        asked = await _object(request)
        request_id, item_id = asked.get("request_id"), asked.get("item_id")
        return await run_in_threadpool(
            self._play,
            lambda playground: playground.click(_an_id(request_id), _an_id(item_id)),
        )

    def _play(self, ask: Any) -> Response:
        """Return what the playground says, or the sentence of what it raises."""
        if self._sources.playground is None:
            return _sentence("there is no playground here", 404)
        try:
            return JSONResponse(asdict(ask(self._sources.playground)))
        except ValueError as error:
            return _sentence(str(error), 400)
        except (RuntimeError, OSError) as error:
            return _sentence(str(error), 503)


async def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _plotly(request: Request) -> Response:
    """The chart library, as plotly's wheel carries it."""
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
        raise ValueError("an id has 1 to 256 characters")
    return given.strip()


def _ids(given: object) -> list[str]:
    if not isinstance(given, list):
        raise ValueError("item_ids is a list")
    return list(dict.fromkeys(map(_an_id, given)))


def _a_number(given: object, least: int = 0, most: int = 1_000_000) -> int:
    if not isinstance(given, int) or not least <= given <= most:
        raise ValueError(f"a number from {least} to {most} is needed, not {given!r}")
    return given


def _sentence(reason: str, status: int) -> Response:
    return JSONResponse({"error": reason}, status)


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _sentence(f"{request.url.path}: {error.detail}", error.status_code)


async def _broken(request: Request, error: Exception) -> Response:
    return _sentence(f"{type(error).__name__}; the terminal shows where", 500)
