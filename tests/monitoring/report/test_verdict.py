"""The headline says what was found, and no more than that."""

from math import inf

import pytest

from srp4ctr.monitoring.quality.ab_test import always_valid
from srp4ctr.monitoring.report.report_contents import Inputs, Quality
from srp4ctr.monitoring.report.verdict import Headline, headline
from tests.monitoring.report.sample_contents import (
    a_contrast,
    a_cost,
    a_version,
    estimate,
    some_contents,
)

DEARER = (a_version("v1"), a_version("v2", cost=a_cost(cpu_s=7200.0)))
CHEAPER = (a_version("v1"), a_version("v2", cost=a_cost(cpu_s=1800.0)))


def said(found: Headline) -> str:
    return " ".join(found.sentences).replace("\u00a0", " ")


def cautioned(**changes: object) -> tuple[str, ...]:
    versions = (a_version("v1"), a_version("v2", **changes))
    return headline(some_contents(versions=versions)).cautions


def test_a_better_and_dearer_version_says_what_a_click_costs() -> None:
    found = headline(some_contents(versions=DEARER))
    assert (found.title, found.tone) == ("v2 earns more clicks than v1", "better")
    assert "2.00 percentage points above that of v1" in said(found)
    assert "95 % interval +1.00 to +3.00" in said(found)
    assert "n = 2,000 impressions of v2" in said(found)
    assert "2.00 USD with v2 and 1.00 USD with v1: 2.0 times as much" in said(found)
    # 20 clicks in 1,000 requests, for 0.1 USD more.
    assert "20.0 clicks in 1,000 requests, for 0.100 USD more: 200 clicks" in said(found)


def test_a_better_and_cheaper_version_is_no_bargain_to_weigh() -> None:
    found = headline(some_contents(versions=CHEAPER))
    assert "It gains 20.0 clicks in 1,000 requests, and costs no more." in said(found)


def test_a_worse_and_cheaper_version_says_what_is_lost() -> None:
    contrast = a_contrast(-0.02, -0.03, -0.01)
    found = headline(some_contents(versions=CHEAPER, contrasts=(contrast,)))
    assert (found.title, found.tone) == ("v2 earns fewer clicks than v1", "worse")
    assert "percentage points below that of v1" in said(found)
    assert "loses 20.0 clicks in 1,000 requests, and saves 0.0500 USD: 400 clicks" in said(
        found
    )


def test_prices_that_hardly_differ_are_called_equal() -> None:
    versions = (a_version("v1"), a_version("v2", cost=a_cost(cpu_s=3601.0)))
    found = said(headline(some_contents(versions=versions)))
    assert "A million candidates cost 1.00 USD with either." in found
    assert "It gains 20.0 clicks in 1,000 requests, and costs no more." in found


def test_an_open_question_says_how_much_more_is_needed() -> None:
    half = always_valid(1e-4, 0.02)
    contrast = a_contrast(0.01, 0.01 - half, 0.01 + half)
    found = headline(some_contents(contrasts=(contrast,), versions=DEARER))
    assert found.title == "Whether v2 is better than v1 is not known yet"
    assert found.tone == "open"
    assert "still contains 0 (n = 2,000 impressions of v2)" in said(found)
    assert "more impressions of v2 at position 1 will tell it from 0" in said(found)
    assert "days at this rate" in said(found)  # 2,000 a day
    assert "clicks for each USD" not in said(found)  # nothing is bought that is not known


def test_few_impressions_say_nothing() -> None:
    found = headline(some_contents(contrasts=(a_contrast(0.2, -1.0, 1.0),)))
    assert found.tone == "open"
    assert "An interval needs 100 impressions of each" in said(found)


def test_a_tiny_difference_is_called_none() -> None:
    half = always_valid(1e-6, 0.02)
    contrast = a_contrast(1e-7, 1e-7 - half, 1e-7 + half)
    assert "they are equal" in said(headline(some_contents(contrasts=(contrast,))))


def test_one_version_has_nothing_to_be_compared_with() -> None:
    found = headline(some_contents(versions=(a_version("v3"),), contrasts=()))
    assert found.title == "Only v3 served: there is nothing to compare it with"
    assert "30.0 (28.0 to 32.0) % of the 2,000 impressions of v3" in said(found)


def test_versions_of_different_hours_are_not_compared() -> None:
    found = headline(some_contents(contrasts=()))
    assert found.title == "v1 and v2 were not compared"
    assert "no comparison" in said(found)


def test_a_version_that_is_gone_has_no_cost() -> None:
    found = headline(some_contents(versions=(a_version("v2"),)))
    assert "v1 served nothing in this time" in said(found)


def test_an_unknown_cost_is_not_guessed() -> None:
    versions = (a_version("v1"), a_version("v2", cost=a_cost(candidates=0.0)))
    assert "What v2 costs is not known" in said(headline(some_contents(versions=versions)))


@pytest.mark.parametrize(
    ("quality", "told"),
    [
        (Quality(calibration=estimate(1.3, 1.2, 1.4)), "v2 promises 1.30 (1.20 to 1.40)"),
        (Quality(calibration=estimate(0.8, 0.75, 0.85)), "do not bid on its scores"),
        (Quality(coverage=0.5), "have a label that should"),
    ],
)
def test_a_figure_beyond_its_limit_is_pointed_out(quality: Quality, told: str) -> None:
    (caution,) = cautioned(quality=quality)
    assert told in caution


def test_moved_scores_and_other_work_are_pointed_out() -> None:
    (moved,) = cautioned(inputs=Inputs(score_psi=0.31))
    assert "PSI 0.31" in moved
    (other,) = cautioned(cost=a_cost(candidates=2e6))
    assert "100 (v1) and 200 (v2)" in other


def test_a_control_group_need_not_be_honest() -> None:
    boast = Quality(calibration=estimate(1.3, 1.2, 1.4))
    versions = (a_version("popularity", quality=boast), a_version("v1"))
    assert headline(some_contents(versions=versions)).cautions == ()


def test_what_is_as_it_should_be_is_not_pointed_out() -> None:
    assert cautioned() == ()
    doubtful = Quality(calibration=estimate(1.3, 1.05, inf))
    assert cautioned(quality=doubtful) == ()  # it may be honest
