"""The demo's comparisons: the same slates, three ways to choose the first item."""

from collections import Counter

import pytest

from srp4ctr.demo.popularity_baseline import PairedCtr
from srp4ctr.demo.replay import ReplayedSlate
from srp4ctr.demo.tables import (
    DemoFigures,
    LiveDetails,
    percentile_ms,
    popularity_click_rate,
    random_click_rate,
    show,
)
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from tests.cli.terminal import assert_whole, printed

FIGURES = DemoFigures(
    events=1_234_567,
    users=98_765,
    rejected=4_321,
    model_version="v1",
    auc=0.751,
    log_loss=0.512,
    calibration=1.023,
    live_auc=0.748,
    live_calibration=0.987,
    online_ctr=0.583,
    popularity_ctr=0.512,
    random_ctr=0.401,
    paired_difference=0.0712,
    paired_low=0.0456,
    paired_high=0.0978,
    paired_users=543,
    paired_visits=12_333,
    requests=12_345,
    failed_requests=12,
    p50_ms=12.3,
    p99_ms=123.4,
    encoder_runs_per_request=1.0,
    folded_flops=62_000_000,
    unfolded_flops=1_371_000_000,
    freshness_p99_s=1.234,
    wall_s=0.0,
)
LIVE = LiveDetails(
    top_interval=Interval(low=0.571, high=0.595),
    auc_interval=Interval(low=0.741, high=0.755),
    log_loss=0.513,
    calibration_interval=Interval(low=0.961, high=1.013),
    matured_impressions=123_456,
    probes=1_234,
    unchanged_probes=7,
    late_probes=1_023,
    control_click_rate=0.502,
    control_interval=Interval(low=0.481, high=0.523),
    paired=PairedCtr(difference=0.0712, low=0.0456, high=0.0978, users=543, visits=12_333),
)


def a_slate(ranked: str, clicked: str, latency_s: float = 0.001) -> ReplayedSlate:
    """Return a slate whose items are the letters of ``ranked``, best first."""
    return ReplayedSlate(
        user_id="u1",
        item_ids=tuple(ranked),
        scores=tuple(1.0 / (n + 1) for n in range(len(ranked))),
        clicked=frozenset(clicked),
        model_version="v1",
        latency_s=latency_s,
    )


def test_popularity_puts_the_most_clicked_item_first() -> None:
    slates = [a_slate("ab", "b"), a_slate("ac", "a")]
    assert popularity_click_rate(slates, Counter({"b": 5, "c": 3})) == 0.5


def test_popularitys_ties_do_not_borrow_the_models_order() -> None:
    assert popularity_click_rate([a_slate("ba", "b")], Counter()) == 0.0


def test_random_is_the_mean_share_of_clicked_items() -> None:
    slates = [a_slate("abcd", "a"), a_slate("ab", "ab")]
    assert random_click_rate(slates) == pytest.approx(0.625)


def test_percentiles_are_in_milliseconds() -> None:
    slates = [a_slate("a", "", latency_s=s / 1000) for s in range(1, 101)]
    assert percentile_ms(slates, 50) == pytest.approx(50.5)


def test_at_80_columns_every_figure_is_whole() -> None:
    shown = printed(lambda console: show(console, FIGURES, LIVE))
    wholes = ("1,234,567", "98,765", "4,321", "0.748 (0.741 to 0.755)", "123,456")
    more = ("0.987 (0.961 to 1.013)", "(0.571 to 0.595)", "0.502", "(0.481 to 0.523)")
    costs = ("62 M", "1371 M  (22×)", "12.3, 123.4 ms", "12 of 12,345", "1.234 s")
    assert_whole(
        shown, (*wholes, *more, *costs, "7 of 1,234", "1,023", "0.751", "1.023", "+0.071")
    )
