import pytest

from monitoring.serving_cost import FAILURES, RUNS, CounterKey
from monitoring.triton_metrics import fetch, parse

# As tritonserver 2.51 writes it.
PAGE = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="rank_clicks",version="1"} 42
# HELP nv_inference_request_failure Number of failed inference requests, all batch sizes
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="rank_clicks",reason="REJECTED",version="1"} 1
nv_inference_request_failure{model="rank_clicks",reason="OTHER",version="1"} 2
# HELP nv_inference_count Number of inferences performed (does not include cached requests)
# TYPE nv_inference_count counter
nv_inference_count{model="behavior_encoder_v7",version="1"} 42
# HELP nv_cpu_utilization CPU utilization rate [0.0 - 1.0]
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
"""


def test_the_inference_counters_are_read_from_tritons_page() -> None:
    sample = parse(PAGE)
    assert sample[CounterKey(RUNS, "behavior_encoder_v7")] == 42.0
    assert len(sample) == 3


def test_failures_are_added_up_over_their_reasons() -> None:
    assert parse(PAGE)[CounterKey(FAILURES, "rank_clicks")] == 3.0


def test_a_page_of_something_else_is_an_error_not_a_crash() -> None:
    with pytest.raises(ValueError, match="html"):
        parse("<html>\nnot metrics at all {")


def test_a_server_that_is_away_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        fetch("http://127.0.0.1:9/metrics")
