"""The queries that the page may send to Prometheus."""

import json
import time

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web.panel_query import (
    MAX_POINTS,
    MAX_QUERY_LENGTH,
    MAX_RANGE_S,
    instant_parameters,
    range_parameters,
)

RANGE = {"query": "up", "start": "1000", "end": "1600", "step": "5"}


def test_a_query_keeps_its_parameters() -> None:
    sent = range_parameters(RANGE)
    assert sent.items() >= {"query": "up", "end": "1600.000", "step": "5"}.items()
    assert instant_parameters({"query": "up", "time": "7"})["time"] == "7.000"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"query": ""}, "a query has 1 to"),
        ({"query": "x" * (MAX_QUERY_LENGTH + 1)}, "a query has 1 to"),
        ({"end": "900"}, "a range is 0 to"),
        ({"end": str(1000 + MAX_RANGE_S + 1), "step": "100000"}, "a range is 0 to"),
        ({"step": "0.5"}, "a step is 1 s at least"),
        ({"step": "-1"}, "a step is 1 s at least"),
        ({"end": str(1000 + 2 * MAX_POINTS), "step": "1"}, "more than"),
        ({"start": "yesterday"}, "start is 'yesterday'"),
        ({"end": "nan"}, "end is 'nan'"),
        ({"step": "inf"}, "step is 'inf'"),
    ],
)
def test_an_expensive_or_invalid_query_is_refused(
    changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(MistakeError, match=reason):
        range_parameters(RANGE | changes)


def test_a_real_prometheus_answers_and_explains_a_wrong_query(prometheus: str) -> None:
    real = Prometheus(prometheus)
    assert real.problem() == ""
    (seven,) = real.at("vector(7)", time.time())
    assert seven.newest == 7
    bad = real.fetch("query", {"query": "sum("})
    assert bad.status == 400
    assert "parse error" in json.loads(bad.body)["error"]
