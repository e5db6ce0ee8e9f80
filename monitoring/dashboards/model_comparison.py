"""Model comparison: is the new model better, and what does it cost?

In: live quality and cost by version, from matured labels; the comparison of two versions
over the minutes in which both served. Out: the dashboard that a promotion is decided on.
"""

from typing import Any

from srp4ctr.monitoring.dashboards import thresholds
from srp4ctr.monitoring.dashboards.layout import board, line, section
from srp4ctr.monitoring.dashboards.panels import column, curves, lines, note, stat, table
from srp4ctr.monitoring.dashboards.queries import (
    CHOSEN,
    MONEY,
    P99,
    PRICE,
    VERSION,
    by_version,
    increase,
    now,
    over_range,
    over_time,
    with_bounds,
)

_ONE_VERSION = "one version has served so far"
_VERDICTS = {1: ("better", "green"), 0: ("undecided", "blue"), -1: ("worse", "red")}
_NO_VERDICT = 'label_replace(absent(srp4ctr_verdict) + 1, "model_version", "none", "", "")'
_GAINED = "model_version:srp4ctr_clicks_gained_per_extra_price"
_HOW_TO_READ = """
A version is **better** or **worse** once the 95 % bounds of the difference exclude 0. The
bounds are anytime-valid: look as often as you like. *Undecided* needs more users. Only
minutes in which both versions served count, and only position 1, where the version chose
what users saw. Dashed lines are bounds.
"""
_USERS = "srp4ctr_experiment_users"
_SEEN = (
    f'sum by (model_version) ({_USERS}{{{CHOSEN}, arm="canary"}}) '
    f"/ sum by (model_version) ({_USERS}{{{CHOSEN}}})"
)


def _of(metric: str, where: str = "") -> str:
    return f"max by (model_version) ({metric}{{{CHOSEN}{where}}})"


def _bins(metric: str, of: str) -> str:
    return f"max by (bin) (srp4ctr_calibration_bin_{metric} and on (model_version) {of})"


_VERDICT = line(
    9,
    stat(
        "Verdict against the serving version",
        "Whether the version earns more clicks at position 1 than the serving version.",
        "none",
        now(f"srp4ctr_verdict{{{CHOSEN}}} or {_NO_VERDICT}", VERSION),
        mappings=thresholds.words({**_VERDICTS, 2: (_ONE_VERSION, "text")}),
        text="value_and_name",
    ),
    lines(
        "CTR difference at position 1",
        "The version's CTR minus the serving one's, with anytime-valid 95 % bounds.",
        "percentunit",
        *with_bounds("srp4ctr_click_rate_difference"),
        limits=thresholds.ABOVE_ZERO,
        noValue=_ONE_VERSION,
    ),
    stat(
        "Clicks gained per extra price",
        "Clicks that a more expensive version gains per unit of its extra price.",
        "short",
        now(f"{_GAINED}{{{CHOSEN}}}", VERSION),
        noValue="no version costs more",
    ),
    stat(
        "Figures behind",
        "Age of the newest moment whose labels are all in these figures; no verdict holds "
        "while it is red.",
        "s",
        now("max(srp4ctr_figures_behind_seconds)"),
        limits=thresholds.BEHIND,
    ),
    note("How to read it", "What better, worse and undecided mean.", _HOW_TO_READ.strip()),
    widths=(5, 6, 4, 4, 5),
)
_AT_TOP = "srp4ctr_online_click_rate_at_top"
_SHARE: dict[str, Any] = {"unit": "percentunit", "decimals": 1}
_SERVES = thresholds.words({1: ("serves", "green")})
_JUDGED = {
    "Calibration": ("srp4ctr_calibration_ratio", thresholds.CALIBRATION),
    "ECE": ("srp4ctr_expected_calibration_error", thresholds.CALIBRATION_ERROR),
    "NE": ("srp4ctr_live_normalized_entropy", thresholds.ENTROPY),
    "AUC": ("srp4ctr_live_auc", thresholds.AUC),
}
_VERSIONS = line(
    8,
    table(
        "Versions at a glance",
        "Quality, cost and latency of each version; the price is in monitoring.currency.",
        {"model_version": "Version"},
        column("Serves", _of("srp4ctr_serving_model"), mappings=_SERVES),
        column(
            "Scores",
            _of("srp4ctr_bundle_sampled_negatives"),
            mappings=thresholds.SCORES,
        ),
        column("Verdict", _of("srp4ctr_verdict"), mappings=thresholds.words(_VERDICTS)),
        column("Impressions", _of("srp4ctr_matured_impressions"), "short"),
        column("Coverage", _of("srp4ctr_label_coverage"), **_SHARE),
        column("CTR at 1", _of(_AT_TOP), **_SHARE),
        column("low", _of(f"{_AT_TOP}_bound", ', bound="low"'), **_SHARE),
        column("high", _of(f"{_AT_TOP}_bound", ', bound="high"'), **_SHARE),
        *(
            column(name, _of(metric), decimals=3, thresholds=limits)
            for name, (metric, limits) in _JUDGED.items()
        ),
        column(
            "Positions",
            _of("srp4ctr_live_auc_position_corrected"),
            mappings=thresholds.words({0: ("unknown", "orange"), 1: ("known", "text")}),
        ),
        column("Price per 1 M", _of(PRICE), MONEY, decimals=4),
        column("p99", _of(P99), "s", thresholds=thresholds.LATENCY),
    ),
)
_PAID = "scalar(max(srp4ctr_price_per_core_hour)) / 3600 * 1e6"
_P99_OF_ALL = (
    "histogram_quantile(0.99, sum by (model_version, le) "
    f"(increase(srp4ctr_request_duration_seconds_bucket{{{CHOSEN}}}[$__range])))"
)
_DIFFERENCE = f"sum by (model_version) (srp4ctr_click_rate_difference{{{CHOSEN}}})"
_COMPARED = f"sum by (model_version) (srp4ctr_compared_impressions{{{CHOSEN}}})"


def _bound(end: str) -> str:
    where = f'{CHOSEN}, bound="{end}"'
    return f"sum by (model_version) (srp4ctr_click_rate_difference_bound{{{where}}})"


# Bounds of -1 and 1 say that there is no interval yet.
_HALF_WIDTH = f"(({_bound('high')} - {_bound('low')}) / 2 < 1)"
_WHOLE_RANGE = line(
    6,
    table(
        "Versions over the whole time range",
        "The same over the dashboard's whole time, with one value of quality per hour; "
        "the price is in monitoring.currency.",
        {"model_version": "Version"},
        column("Requests", increase("srp4ctr_scored_requests_total"), "short"),
        column(
            "CTR at 1", over_range(_AT_TOP, "srp4ctr_matured_top_impressions"), **_SHARE
        ),
        *(
            column(
                name,
                over_range(metric, "srp4ctr_matured_impressions"),
                decimals=3,
                thresholds=limits,
            )
            for name, (metric, limits) in _JUDGED.items()
        ),
        column(
            "Price per 1 M",
            f"{increase('srp4ctr_serving_cpu_seconds_total')} * {_PAID} "
            f"/ {increase('srp4ctr_scored_candidates_total')}",
            MONEY,
            decimals=4,
        ),
        column("p99", _P99_OF_ALL, "s", thresholds=thresholds.LATENCY),
    ),
    stat(
        "Impressions to a verdict",
        "About how many more impressions at position 1 a verdict needs, if the difference "
        "stays as it is.",
        "short",
        now(
            f"clamp_min((({_HALF_WIDTH} / abs({_DIFFERENCE})) ^ 2 - 1) * {_COMPARED}, 0)",
            VERSION,
        ),
        noValue="too few impressions to tell",
    ),
    widths=(20, 4),
)
_CLICKS = line(
    8,
    lines(
        "CTR at position 1",
        "Click rate of the item ranked first, with 95 % bounds by users.",
        "percentunit",
        *with_bounds(_AT_TOP),
    ),
    lines(
        "CTR, matured and provisional",
        "Provisional click rates rise until their labels have matured.",
        "percentunit",
        by_version("srp4ctr_online_click_rate"),
        by_version("srp4ctr_provisional_click_rate", which="provisional"),
    ),
    lines(
        "Users of the canary",
        "Their share of the users, as impressions have it and as the server assigns it.",
        "percentunit",
        over_time(_SEEN, VERSION),
        over_time(_of("srp4ctr_canary_share"), f"{VERSION} assigned"),
        noValue="no canary",
    ),
    stat(
        "Evidence of a wrong split",
        "Logarithm of the odds against the assigned share; no verdict holds in red.",
        "short",
        now(f"sum by (model_version) (srp4ctr_sample_ratio_evidence{{{CHOSEN}}})", VERSION),
        limits=thresholds.EVIDENCE,
        noValue="no canary",
    ),
    lines(
        "Mean reciprocal rank of clicks",
        "Mean of 1 / position over clicks: 1 if every click is on the first item.",
        "none",
        by_version("srp4ctr_click_mean_reciprocal_rank"),
    ),
    widths=(6, 5, 5, 4, 4),
)
_IS_SERVING = "(srp4ctr_serving_model == 1)"
_CHALLENGER = f"topk(1, srp4ctr_compared_impressions{{{CHOSEN}}})"
_CALIBRATION = line(
    10,
    # Columns have fixed names: so there is one per role, not per version.
    curves(
        "Calibration curve",
        "Above the diagonal the model under-predicts clicks, below it over-predicts.",
        "percentunit",
        {
            "Score": f"sort({_bins('score', _IS_SERVING)})",  # curves run left to right
            "Perfectly calibrated": _bins("score", _IS_SERVING),
            "Serving": _bins("click_rate", _IS_SERVING),
            "Score of challenger": _bins("score", _CHALLENGER),
            "Challenger": _bins("click_rate", _CHALLENGER),
        },
        {
            ("Score", "Perfectly calibrated"): "text",
            ("Score", "Serving"): "blue",
            ("Score of challenger", "Challenger"): "orange",
        },
    ),
    lines(
        "Calibration",
        "Sum of scores / clicks, with 95 % bounds: 1 is calibrated, 2 twice too high; "
        "no value with sampled negatives, because those scores are not probabilities.",
        "none",
        *with_bounds("srp4ctr_calibration_ratio"),
        limits=thresholds.CALIBRATION,
    ),
    lines(
        "Expected calibration error",
        "Mean distance of score and click rate in ten bins, which a ratio can hide.",
        "none",
        by_version("srp4ctr_expected_calibration_error"),
        limits=thresholds.CALIBRATION_ERROR,
        min=0,
    ),
)


def _next_items(places: str) -> str:
    of = f'srp4ctr_next_items_total{{{CHOSEN},place=~"{places}"}}'
    return f"sum by (model_version) (increase({of}[1h]))"


_RANKING = line(
    8,
    lines(
        "AUC at a position",
        "Probability that a clicked item scores above an unclicked one at the same "
        "position (0.5 is random), and what the scores predict for themselves.",
        "none",
        *with_bounds("srp4ctr_live_auc"),
        by_version("srp4ctr_live_auc_expected", which="expected"),
        limits=thresholds.AUC,
    ),
    lines(
        "AUC within a request",
        "The same for the two top items of a request, from explored requests only.",
        "none",
        *with_bounds("srp4ctr_live_request_auc"),
        limits=thresholds.AUC,
        noValue="the server does not explore",
    ),
    lines(
        "Recall@100 of recommendations",
        "Share of users' next new items that were among the first 100 candidates.",
        "percentunit",
        over_time(f"{_next_items('1-20|21-100')} / ({_next_items('.*')} > 0)", VERSION),
        min=0,
        max=1,
        noValue="no user came back after a recommendation",
    ),
)
_LIKELIHOOD = line(
    8,
    lines(
        "Normalised entropy",
        "Log loss / log loss of the mean click rate: at 1 the model adds nothing.",
        "none",
        by_version("srp4ctr_live_normalized_entropy"),
        limits=thresholds.ENTROPY,
    ),
    lines(
        "Log loss",
        "Nats per impression; both worse ranking and worse calibration raise it.",
        "none",
        by_version("srp4ctr_live_log_loss_nats"),
    ),
)
_SAMPLE_SIZES = line(
    8,
    lines(
        "Impressions, matured and provisional",
        "Impressions with a matured label, and those whose label window is open.",
        "short",
        by_version("srp4ctr_matured_impressions"),
        by_version("srp4ctr_provisional_impressions", which="provisional"),
    ),
    lines(
        "Label coverage",
        "Share of the impressions whose label window has closed that have a label.",
        "percentunit",
        by_version("srp4ctr_label_coverage"),
        min=0,
        max=1,
    ),
    lines(
        "Impressions compared",
        "Impressions at position 1 while both versions served: the verdict's sample.",
        "short",
        by_version("srp4ctr_compared_impressions"),
        noValue=_ONE_VERSION,
    ),
)
_COST = line(
    8,
    lines(
        "Price per million candidates",
        "CPU time of the serving processes at the settings' price, in monitoring.currency.",
        MONEY,
        by_version(PRICE),
        min=0,
    ),
    lines(
        "FLOPs per request",
        "What a version computes, independent of the machine.",
        "short",
        by_version("model_version:srp4ctr_flops_per_request:rate5m"),
        min=0,
    ),
    lines(
        "Latency, p99",
        "Whether a better version is fast enough to serve.",
        "s",
        by_version(P99),
        limits=thresholds.LATENCY,
    ),
)
BOARD = board(
    "model_comparison",
    "Model comparison",
    "Versions side by side: click rate, calibration, ranking quality and cost.",
    section("Verdict", _VERDICT, _VERSIONS, _WHOLE_RANGE),
    section("Clicks", _CLICKS),
    section("Calibration", _CALIBRATION),
    section("Ranking and likelihood", _RANKING, _LIKELIHOOD),
    section("Sample sizes", _SAMPLE_SIZES),
    section("Cost", _COST),
)
