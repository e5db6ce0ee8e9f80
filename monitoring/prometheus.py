"""The one HTTP client of Prometheus and of pages of metrics.

It uses no proxy of the environment and follows no redirect: a server that shows what it
finds (``srp4ctr monitor open``) must give no access to the network.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from math import isfinite
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from srp4ctr.errors import MistakeError, OutageError

MAX_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 60.0  # a latency histogram over months takes Prometheus a while
READY_TIMEOUT_S = 2.0
PAGE_TIMEOUT_S = 2.0  # a page of 10 models takes 2 ms; a hanging server must not block
_HOW = (
    "Its address is the setting monitoring.prometheus_url; compose.yaml has one, and "
    "`srp4ctr stack up` starts one where it is installed (Debian: apt install prometheus)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered; Prometheus's has an error if the status is not 200."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values of one label set: Unix seconds and numbers, the oldest first."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def newest(self) -> float:
        """The last value."""
        return self.points[-1][1]


def get(url: str, timeout_s: float, max_bytes: int = MAX_BYTES) -> Answer:
    """Return what ``url`` answers; ``OutageError`` if nothing does.

    Raises ``MistakeError`` for an answer of more than ``max_bytes``.
    """
    opener = build_opener(ProxyHandler({}), _NoRedirect())
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            body, status = answer.read(max_bytes + 1), answer.status
    except HTTPError as error:
        with error:
            return Answer(status=error.code, body=error.read(max_bytes))
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise OutageError(str(reason)) from error
    if len(body) > max_bytes:
        raise MistakeError("the answer is too large: choose a shorter range")
    return Answer(status=status, body=body)


def read_metrics(url: str) -> list[Metric]:
    """Return the metrics of the page at ``url``.

    Raises ``OutageError`` if no server answers with one, and ``ValueError`` if it is not
    in Prometheus's format.
    """
    answer = get(url, PAGE_TIMEOUT_S)
    if answer.status != 200:
        raise OutageError(f"{url} answers with status {answer.status}")
    return list(text_string_to_metric_families(answer.body.decode()))


class Prometheus:
    """Queries the Prometheus at ``url``; an empty ``url`` means there is none."""

    def __init__(self, url: str) -> None:
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise MistakeError(f"monitoring.prometheus_url is {url!r}; http://host:port")
        self.url = url.rstrip("/")

    def problem(self) -> str:
        """Return why Prometheus cannot be queried; "" if it can."""
        if not self.url:
            return "No Prometheus runs with this stack."
        try:
            answer = self.fetch("query", {"query": "vector(1)"}, READY_TIMEOUT_S)
            is_prometheus = json.loads(answer.body)["status"] == "success"
        except (OutageError, ValueError, KeyError, TypeError) as error:
            return f"No Prometheus answers at {self.url} ({error})."
        return "" if is_prometheus else f"What answers at {self.url} is no Prometheus."

    def fetch(
        self,
        call: str,
        parameters: Mapping[str, str],
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
    ) -> Answer:
        """Return the answer to ``/api/v1/`` + ``call``; ``OutageError`` without one."""
        if not self.url:
            raise OutageError("there is no Prometheus")
        query = f"{self.url}/api/v1/{call}?{urlencode(parameters)}"
        return get(query, timeout_s, max_bytes)

    def at(self, query: str, when_s: float) -> list[Series]:
        """Return the series of ``query`` as of one instant, each with one point."""
        found = self._data("query", {"query": query, "time": f"{when_s:.3f}"})
        return _series(found["result"])

    def over(self, query: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Return the series of ``query`` at every ``step_s``; the last point is the end."""
        steps = int((end_s - start_s) / step_s)
        parameters = {
            "query": query,
            "start": f"{end_s - steps * step_s:.3f}",
            "end": f"{end_s:.3f}",
            "step": f"{step_s:g}",
        }
        return _series(self._data("query_range", parameters)["result"])

    def _data(self, call: str, parameters: Mapping[str, str]) -> Any:
        """Return the data of the answer; says what to do if there is none."""
        if not self.url:
            raise MistakeError(f"there is no Prometheus to read from. {_HOW}")
        try:
            answer = self.fetch(call, parameters)
        except OutageError as error:
            where = f"no Prometheus answers at {self.url}"
            raise OutageError(f"{where} ({error}). {_HOW}") from error
        try:
            found = json.loads(answer.body)
            if found["status"] == "success":
                return found["data"]
            reason = f"{self.url} answers: {found['error']}"
        except (ValueError, KeyError, TypeError):
            reason = f"what answers at {self.url} is no Prometheus"
        raise (OutageError if answer.status >= 500 else MistakeError)(reason)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _series(results: list[dict[str, Any]]) -> list[Series]:
    """Return the series that have any finite value."""
    found = (
        Series(
            labels=result["metric"],
            points=_points(result["values"] if "values" in result else [result["value"]]),
        )
        for result in results
    )
    return [series for series in found if series.points]


def _points(rows: list[Any]) -> tuple[tuple[float, float], ...]:
    points = ((float(when), float(value)) for when, value in rows)
    return tuple(point for point in points if isfinite(point[1]))
