"""A panel's query → Prometheus's JSON, within bounds on the query's cost.

Only two paths of one host are requested, and no redirect is followed: the page's server
gives no access to the network.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

MAX_QUERY_LENGTH = 8_000
MAX_RANGE_S = 8 * 86_400.0
MAX_POINTS = 2_000  # of a line; Prometheus's own limit is 11,000
MAX_ANSWER_BYTES = 16 * 1024 * 1024
TIMEOUT_S = 10.0
READY_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstantQuery:
    """PromQL as of one instant, in Unix seconds."""

    query: str
    at_s: float

    def __post_init__(self) -> None:
        _check_query(self.query)

    def parameters(self) -> dict[str, str]:
        """Return the parameters of ``/api/v1/query``."""
        at = f"{self.at_s:.3f}"
        return {"query": self.query, "time": at, "timeout": f"{TIMEOUT_S:g}s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeQuery:
    """PromQL at every ``step_s`` from ``start_s`` to ``end_s``, in Unix seconds."""

    query: str
    start_s: float
    end_s: float
    step_s: float

    def __post_init__(self) -> None:
        _check_query(self.query)
        length_s = self.end_s - self.start_s
        if not 0 < length_s <= MAX_RANGE_S:
            raise ValueError(f"a range is 0 to {MAX_RANGE_S:g} s long, not {length_s:g}")
        if not self.step_s >= 1:
            raise ValueError(f"a step is 1 s at least, not {self.step_s:g}")
        if length_s / self.step_s > MAX_POINTS:
            raise ValueError(f"more than {MAX_POINTS} points: take a longer step")

    def parameters(self) -> dict[str, str]:
        """Return the parameters of ``/api/v1/query_range``."""
        return {
            "query": self.query,
            "start": f"{self.start_s:.3f}",
            "end": f"{self.end_s:.3f}",
            "step": f"{self.step_s:g}",
            "timeout": f"{TIMEOUT_S:g}s",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAnswer:
    """Prometheus's JSON; it has an error message if the status is not 200."""

    status: int
    body: bytes


def instant_query(given: Mapping[str, str]) -> InstantQuery:
    """Return the query in a URL's parameters; ``ValueError`` for one out of bounds."""
    return InstantQuery(query=given.get("query", ""), at_s=_number(given, "time"))


def range_query(given: Mapping[str, str]) -> RangeQuery:
    """Return the query in a URL's parameters; ``ValueError`` for one out of bounds."""
    return RangeQuery(
        query=given.get("query", ""),
        start_s=_number(given, "start"),
        end_s=_number(given, "end"),
        step_s=_number(given, "step"),
    )


class PrometheusApi:
    """Queries the Prometheus at ``url``; an empty ``url`` means there is none."""

    def __init__(self, url: str) -> None:
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"monitoring.prometheus_url is {url!r}; http://host:port")
        self.url = url.rstrip("/")
        # No proxy of the environment, and no redirect.
        self._opener = build_opener(ProxyHandler({}), _NoRedirect())

    def send(self, query: InstantQuery | RangeQuery) -> ApiAnswer:
        """Return the answer; raises ``ConnectionError`` if there is no Prometheus."""
        call = "query" if isinstance(query, InstantQuery) else "query_range"
        return self._get(f"api/v1/{call}?{urlencode(query.parameters())}", TIMEOUT_S + 1)

    def problem(self) -> str:
        """Return why Prometheus cannot be queried; "" if it can."""
        if not self.url:
            return "No Prometheus runs with this stack."
        try:
            answer = self._get("api/v1/query?query=vector(1)", READY_TIMEOUT_S)
            is_prometheus = json.loads(answer.body)["status"] == "success"
        except (ConnectionError, ValueError, KeyError, TypeError) as error:
            return f"No Prometheus answers at {self.url} ({error})."
        return "" if is_prometheus else f"What answers at {self.url} is no Prometheus."

    def _get(self, path: str, timeout_s: float) -> ApiAnswer:
        if not self.url:
            raise ConnectionError("there is no Prometheus")
        try:
            with self._opener.open(f"{self.url}/{path}", timeout=timeout_s) as answer:
                body = answer.read(MAX_ANSWER_BYTES + 1)
                status = answer.status
        except HTTPError as error:
            with error:
                return ApiAnswer(status=error.code, body=error.read(MAX_ANSWER_BYTES))
        except URLError as error:
            raise ConnectionError(str(error.reason)) from error
        except (OSError, HTTPException) as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError("the answer is too large: choose a shorter range")
        return ApiAnswer(status=status, body=body)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _check_query(query: str) -> None:
    if not 0 < len(query) <= MAX_QUERY_LENGTH:
        raise ValueError(f"a query has 1 to {MAX_QUERY_LENGTH} characters")


def _number(given: Mapping[str, str], name: str) -> float:
    try:
        number = float(given.get(name, ""))
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e12:
        raise ValueError(f"{name} is {given.get(name)!r}; a number is needed")
    return number
