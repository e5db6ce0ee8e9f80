"""The headline states the result, its uncertainty and its cost, and claims no more."""

from math import inf

import pytest

from srp4ctr.monitoring.quality.ab_test import anytime_half_width
from srp4ctr.monitoring.report.headline import Headline, headline
from srp4ctr.monitoring.report.number_format import SPACE
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.report_contents import Inputs, Quality
from tests.monitoring.report.sample_contents import (
    START_S,
    a_comparison,
    a_cost,
    a_scope,
    a_version,
    estimate,
    some_contents,
)

MORE_EXPENSIVE = (a_version("v1"), a_version("v2", cost=a_cost(cpu_s=7200.0)))
CHEAPER = (a_version("v1"), a_version("v2", cost=a_cost(cpu_s=1800.0)))


def text(found: Headline) -> str:
    return " ".join(found.sentences).replace(SPACE, " ")


def warnings_of(**changes: object) -> tuple[str, ...]:
    versions = (a_version("v1"), a_version("v2", **changes))
    return headline(some_contents(versions=versions)).warnings


def test_a_better_and_more_expensive_version_has_a_price_per_click() -> None:
    found = headline(some_contents(versions=MORE_EXPENSIVE))
    assert (found.title, found.tone) == ("v2 earns more clicks than v1", "better")
    assert "2.00 percentage points above that of v1" in text(found)
    assert "95 % confidence sequence +1.00 to +3.00" in text(found)
    assert "n = 2,000 impressions of v2" in text(found)
    assert "2.00 USD with v2 and 1.00 USD with v1: 2.0 times as much" in text(found)
    assert "20.0 clicks per 1,000 requests for 0.100 USD more: 200 clicks" in text(found)


def test_a_better_and_cheaper_version_costs_no_more() -> None:
    found = headline(some_contents(versions=CHEAPER))
    assert "It gains 20.0 clicks per 1,000 requests and costs no more." in text(found)


def test_a_worse_and_cheaper_version_has_a_saving_per_lost_click() -> None:
    comparison = a_comparison(-0.02, -0.03, -0.01)
    found = headline(some_contents(versions=CHEAPER, comparisons=(comparison,)))
    assert (found.title, found.tone) == ("v2 earns fewer clicks than v1", "worse")
    assert "percentage points below that of v1" in text(found)
    assert "loses 20.0 clicks per 1,000 requests and saves 0.0500 USD: 400 clicks" in text(
        found
    )


def test_prices_that_hardly_differ_are_called_equal() -> None:
    versions = (a_version("v1"), a_version("v2", cost=a_cost(cpu_s=3601.0)))
    found = text(headline(some_contents(versions=versions)))
    assert "A million candidates cost 1.00 USD with either version." in found
    assert "It gains 20.0 clicks per 1,000 requests and costs no more." in found
    free = a_cost(price_per_core_hour=0.0)
    versions = (a_version("v1", cost=free), a_version("v2", cost=free))
    found = text(headline(some_contents(versions=versions)))
    assert "A million candidates cost 0 USD with either version." in found


def test_an_insignificant_difference_says_how_many_more_impressions_it_needs() -> None:
    half = anytime_half_width(1e-4, 0.02)
    comparison = a_comparison(0.01, 0.01 - half, 0.01 + half)
    found = headline(some_contents(comparisons=(comparison,), versions=MORE_EXPENSIVE))
    assert found.title == "Not enough data to say whether v2 is better than v1"
    assert found.tone == "open"
    assert "contains 0 (n = 2,000 impressions of v2)" in text(found)
    assert "more impressions of v2 at position 1, which take" in text(found)
    assert "days at this rate" in text(found)  # 2,000 a day
    assert "clicks for each USD" not in text(found)


def test_a_wait_is_left_out_where_no_impression_has_matured() -> None:
    half = anytime_half_width(1e-4, 0.02)
    comparison = a_comparison(0.01, 0.01 - half, 0.01 + half)
    versions = (a_version("v1"), a_version("v2", quality=Quality()))
    found = text(headline(some_contents(comparisons=(comparison,), versions=versions)))
    assert "more impressions of v2 at position 1." in found
    assert "nan" not in found


def test_few_impressions_have_no_confidence_sequence() -> None:
    found = headline(some_contents(comparisons=(a_comparison(0.2, -1.0, 1.0),)))
    assert found.tone == "open"
    assert "It needs 100 impressions of each" in text(found)


def test_versions_with_a_tiny_difference_are_called_equal() -> None:
    half = anytime_half_width(1e-6, 0.02)
    comparison = a_comparison(1e-7, 1e-7 - half, 1e-7 + half)
    assert "treat the versions as equal" in text(
        headline(some_contents(comparisons=(comparison,)))
    )


def test_a_single_version_is_not_compared() -> None:
    found = headline(some_contents(versions=(a_version("v3"),), comparisons=()))
    assert found.title == "Only v3 served: there is nothing to compare it with"
    assert "30.0 (28.0 to 32.0) % of the 2,000 impressions of v3" in text(found)


def test_versions_of_different_hours_are_not_compared() -> None:
    found = headline(some_contents(comparisons=()))
    assert found.title == "v1 and v2 were not compared"
    assert "cannot be compared" in text(found)


def test_a_version_that_is_gone_has_no_cost() -> None:
    found = headline(some_contents(versions=(a_version("v2"),)))
    assert "v1 served nothing in this period" in text(found)


def test_an_unknown_cost_is_not_guessed() -> None:
    versions = (a_version("v1"), a_version("v2", cost=a_cost(candidates=0.0)))
    assert "The cost of v2 is unknown" in text(headline(some_contents(versions=versions)))


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        (Quality(calibration=estimate(1.3, 1.2, 1.4)), "v2 over-predicts by 30 %"),
        (Quality(calibration=estimate(0.8, 0.75, 0.85)), "v2 under-predicts by 20 %"),
        (Quality(label_coverage=0.5), "Only 50 % of the impressions of v2"),
    ],
)
def test_a_figure_beyond_its_limit_is_a_warning(quality: Quality, expected: str) -> None:
    (warning,) = warnings_of(quality=quality)
    assert expected in warning.replace(SPACE, " ")


def test_shifted_scores_and_unequal_request_sizes_are_warnings() -> None:
    (shifted,) = warnings_of(inputs=Inputs(score_psi=0.31))
    assert "PSI 0.31" in shifted
    (other,) = warnings_of(cost=a_cost(candidates=2e6))
    assert "100 (v1) and 200 (v2)" in other


@pytest.mark.parametrize(
    ("length_s", "silent_s", "warned"),
    [(86_400, 590, False), (86_400, 610, True), (90 * 86_400, 3600, False)],
)
def test_data_that_end_before_the_period_are_a_warning(
    length_s: int, silent_s: int, warned: bool
) -> None:
    period = Period(start_s=START_S, end_s=START_S + length_s)
    covered = Period(start_s=START_S, end_s=period.end_s - silent_s)
    found = headline(some_contents(scope=a_scope(period=period, covered=covered)))
    assert any("The monitor's data end" in each for each in found.warnings) == warned


def test_a_control_group_need_not_be_calibrated() -> None:
    overconfident = Quality(calibration=estimate(1.3, 1.2, 1.4))
    versions = (a_version("popularity", quality=overconfident), a_version("v1"))
    assert headline(some_contents(versions=versions)).warnings == ()


def test_figures_within_their_limits_are_no_warning() -> None:
    assert warnings_of() == ()
    doubtful = Quality(calibration=estimate(1.3, 1.05, inf))
    assert warnings_of(quality=doubtful) == ()  # it may be calibrated
