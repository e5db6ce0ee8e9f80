"""Model comparison: is the new model better, and what does it cost?

In: live quality and cost by version, from matured labels; the comparison of two versions
over the minutes in which both served. Out: the dashboard that a promotion is decided on.
"""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.common import BigValueTextMode

from srp4ctr.monitoring.dashboards.builders import thresholds
from srp4ctr.monitoring.dashboards.builders.calibration_curve import calibration_curve
from srp4ctr.monitoring.dashboards.builders.grid import (
    choose_versions,
    line,
    new_board,
    section,
)
from srp4ctr.monitoring.dashboards.builders.panels import (
    limited,
    lines,
    note,
    stat_of,
)
from srp4ctr.monitoring.dashboards.builders.queries import (
    CHOSEN,
    MONEY,
    VERSION,
    by_version,
    now,
    over_time,
    with_bounds,
)
from srp4ctr.monitoring.dashboards.builders.version_table import VERDICTS, version_table

_ONE_VERSION = "one version has served so far"
_HOW_TO_READ = """
A version is **better** or **worse** once the 95 % bounds of the difference exclude 0. The
bounds are anytime-valid: look as often as you like. *Undecided* needs more traffic. Only
minutes in which both versions served count, and only position 1, where the version chose
what users saw. Dashed lines are bounds.
"""


def board() -> Dashboard:
    """Return the dashboard."""
    why = "Versions side by side: click rate, calibration, ranking quality and cost."
    made = choose_versions(new_board("model_comparison", "Model comparison", why))
    _verdict(made)
    _clicks(made)
    _calibration(made)
    _ranking(made)
    _sample_sizes(made)
    _cost(made)
    return made


def _verdict(made: Dashboard) -> None:
    section(made, "Verdict")
    none = 'label_replace(absent(srp4ctr_verdict) + 1, "model_version", "none", "", "")'
    verdict = (
        stat_of(
            "Verdict against the serving version",
            "Whether the version earns more clicks at position 1 than the serving version.",
            "none",
            now(f"srp4ctr_verdict{{{CHOSEN}}} or {none}", VERSION),
        )
        .mappings(thresholds.words({**VERDICTS, 2: (_ONE_VERSION, "text")}))
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
    )
    difference = lines(
        "CTR difference at position 1",
        "The version's CTR minus the serving one's, with anytime-valid 95 % bounds.",
        "percentunit",
        *with_bounds("srp4ctr_click_rate_difference"),
    ).no_value(_ONE_VERSION)
    gained = stat_of(
        "Clicks gained per extra price",
        "Clicks that a more expensive version gains per unit of its extra price.",
        "short",
        now(f"model_version:srp4ctr_clicks_gained_per_extra_price{{{CHOSEN}}}", VERSION),
    ).no_value("no version costs more")
    reading = note(
        "How to read it", "What better, worse and undecided mean.", _HOW_TO_READ.strip()
    )
    difference = limited(difference, thresholds.above_zero())
    line(made, 9, (6, verdict), (8, difference), (4, gained), (6, reading))
    line(made, 8, (24, version_table()))


def _clicks(made: Dashboard) -> None:
    section(made, "Clicks")
    at_top = lines(
        "CTR at position 1",
        "Click rate of the item ranked first, with Wilson's 95 % bounds.",
        "percentunit",
        *with_bounds("srp4ctr_online_click_rate_at_top"),
    )
    anywhere = lines(
        "CTR, matured and provisional",
        "Provisional click rates rise until their labels have matured.",
        "percentunit",
        by_version("srp4ctr_online_click_rate"),
        over_time(f"srp4ctr_provisional_click_rate{{{CHOSEN}}}", f"{VERSION} provisional"),
    )
    first = lines(
        "Mean reciprocal rank of clicks",
        "Mean of 1 / position over clicks: 1 if every click is on the first item.",
        "none",
        by_version("srp4ctr_click_mean_reciprocal_rank"),
    )
    line(made, 8, (8, at_top), (8, anywhere), (8, first))


def _calibration(made: Dashboard) -> None:
    section(made, "Calibration")
    ratio = lines(
        "Calibration",
        "Sum of scores / clicks, with 95 % bounds: 1 is calibrated, 2 twice too high.",
        "none",
        *with_bounds("srp4ctr_calibration_ratio"),
    )
    error = lines(
        "Expected calibration error",
        "Mean distance of score and click rate in ten bins, which a ratio can hide.",
        "none",
        by_version("srp4ctr_expected_calibration_error"),
    )
    ratio = limited(ratio, thresholds.calibration())
    error = limited(error.min(0), thresholds.calibration_error())
    line(made, 10, (8, calibration_curve()), (8, ratio), (8, error))


def _ranking(made: Dashboard) -> None:
    section(made, "Ranking and likelihood")
    auc = lines(
        "AUC",
        "Probability that a clicked item scores above an unclicked one: 0.5 is random.",
        "none",
        *with_bounds("srp4ctr_live_auc"),
    )
    entropy = lines(
        "Normalised entropy",
        "Log loss / log loss of the mean click rate: at 1 the model adds nothing.",
        "none",
        by_version("srp4ctr_live_normalized_entropy"),
    )
    loss = lines(
        "Log loss",
        "Nats per impression; both worse ranking and worse calibration raise it.",
        "none",
        by_version("srp4ctr_live_log_loss_nats"),
    )
    auc = limited(auc, thresholds.auc())
    entropy = limited(entropy, thresholds.entropy())
    line(made, 8, (8, auc), (8, entropy), (8, loss))


def _sample_sizes(made: Dashboard) -> None:
    section(made, "Sample sizes")
    impressions = lines(
        "Impressions, matured and provisional",
        "Impressions with a matured label, and those whose label window is open.",
        "short",
        by_version("srp4ctr_matured_impressions"),
        over_time(f"srp4ctr_provisional_impressions{{{CHOSEN}}}", f"{VERSION} provisional"),
    )
    coverage = lines(
        "Label coverage",
        "Share of the impressions whose label window has closed that have a label.",
        "percentunit",
        by_version("srp4ctr_label_coverage"),
    )
    compared = lines(
        "Impressions compared",
        "Impressions at position 1 while both versions served: the verdict's sample.",
        "short",
        by_version("srp4ctr_compared_impressions"),
    ).no_value(_ONE_VERSION)
    line(made, 8, (8, impressions), (8, coverage.min(0).max(1)), (8, compared))


def _cost(made: Dashboard) -> None:
    section(made, "Cost")
    price = lines(
        "Price per million candidates",
        "CPU time of the serving processes at the price in the settings.",
        MONEY,
        by_version("model_version:srp4ctr_price_per_million_candidates:rate5m"),
    )
    flops = lines(
        "FLOPs per request",
        "What a version computes, independent of the machine.",
        "short",
        by_version("model_version:srp4ctr_flops_per_request:rate5m"),
    )
    slow = lines(
        "Latency, p99",
        "Whether a better version is fast enough to serve.",
        "s",
        by_version("model_version:srp4ctr_request_duration_seconds:p99_5m"),
    )
    slow = limited(slow, thresholds.latency())
    line(made, 8, (8, price.min(0)), (8, flops.min(0)), (8, slow))
