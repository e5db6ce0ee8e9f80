"""PromQL → series of labels and values, by Prometheus's HTTP API.

Raises ``ValueError`` with what to do if there is no Prometheus, or it does not answer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from math import isfinite
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, build_opener

from srp4ctr.monitoring.report.period import Period

TIMEOUT_S = 60.0  # a latency histogram over months takes Prometheus a while


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values of one label set: Unix seconds and numbers, the oldest first."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def newest(self) -> float:
        """The last value."""
        return self.points[-1][1]


class Prometheus:
    """Queries the Prometheus at ``url``."""

    def __init__(self, url: str) -> None:
        if not url:
            raise ValueError(f"there is no Prometheus to read from. {_HOW}")
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"monitoring.prometheus_url is {url!r}; http://host:port")
        self.url = url.rstrip("/")
        self._opener = build_opener(ProxyHandler({}))  # no proxy: it is on this network

    def at(self, query: str, when_s: float) -> list[Series]:
        """Return the series of ``query`` as of one instant, each with one point."""
        found = self._get("query", {"query": query, "time": f"{when_s:.3f}"})
        return _series(found["result"])

    def over(self, query: str, period: Period, step_s: float) -> list[Series]:
        """Return the series of ``query`` at every ``step_s``; the last point is the end."""
        steps = int(period.length_s / step_s)
        parameters = {
            "query": query,
            "start": f"{period.end_s - steps * step_s:.3f}",
            "end": f"{period.end_s:.3f}",
            "step": f"{step_s:g}",
        }
        return _series(self._get("query_range", parameters)["result"])

    def num_alert_rules(self) -> int:
        """Return the number of alert rules."""
        groups = self._get("rules", {"type": "alert"})["groups"]
        return sum(len(group["rules"]) for group in groups)

    def _get(self, call: str, parameters: Mapping[str, str]) -> Any:
        """Return the data of the response."""
        url = f"{self.url}/api/v1/{call}?{urlencode(parameters)}"
        try:
            with self._opener.open(url, timeout=TIMEOUT_S) as response:
                return json.load(response)["data"]
        except HTTPError as error:
            with error:
                raise ValueError(f"{self.url} answers: {_reason(error)}") from error
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ValueError(
                f"no Prometheus answers at {self.url} ({reason}). {_HOW}"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"what answers at {self.url} is no Prometheus") from error


_HOW = (
    "Its address is the setting monitoring.prometheus_url; compose.yaml has one, and "
    "`srp4ctr stack up` starts one where it is installed (Debian: apt install prometheus)."
)


def _reason(error: HTTPError) -> str:
    """Return Prometheus's error message."""
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"{error.code} {error.reason}"


def _series(results: list[dict[str, Any]]) -> list[Series]:
    """Return the series that have any finite value."""
    found = (
        Series(
            labels=each["metric"],
            points=_points(each["values"] if "values" in each else [each["value"]]),
        )
        for each in results
    )
    return [series for series in found if series.points]


def _points(rows: list[Any]) -> tuple[tuple[float, float], ...]:
    points = ((float(when), float(value)) for when, value in rows)
    return tuple(point for point in points if isfinite(point[1]))
