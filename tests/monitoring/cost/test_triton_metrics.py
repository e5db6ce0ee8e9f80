import pytest

from srp4ctr.monitoring.cost.triton_counters import FAILURES, RUNS, CounterKey
from srp4ctr.monitoring.cost.triton_metrics import fetch, parse
from tests.monitoring.conftest import PAGE


def test_the_inference_counters_are_read_from_tritons_page() -> None:
    sample = parse(PAGE)
    assert sample[CounterKey(RUNS, "behavior_encoder_v7")] == 42.0
    assert len(sample) == 3


def test_failures_are_added_up_over_their_reasons() -> None:
    assert parse(PAGE)[CounterKey(FAILURES, "rank_clicks")] == 3.0


def test_a_page_of_something_else_is_an_error_not_a_crash() -> None:
    with pytest.raises(ValueError, match="html"):
        parse("<html>\nnot metrics at all {")


def test_a_server_that_is_down_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        fetch("http://127.0.0.1:9/metrics")
