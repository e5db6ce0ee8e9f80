"""Overview: health as figures on green, amber or red, then as lines over time.

In: the metrics of all exporters, aggregated. Out: the dashboard that opens first.
"""

from srp4ctr.monitoring.dashboards import thresholds
from srp4ctr.monitoring.dashboards.layout import board, line, section
from srp4ctr.monitoring.dashboards.panels import lines, matching, overridden, stat, timeline
from srp4ctr.monitoring.dashboards.queries import (
    CPU_TIME,
    ENCODER_RUNS,
    MONEY,
    P50,
    P99,
    PRICE,
    RANKED,
    REENCODED_PRICE,
    VERSION,
    by_version,
    now,
    of_serving,
    or_none,
    over_time,
    quantile,
    quantiles,
    rate,
    rates,
    with_bounds,
)

_SUCCESS_RATE = (
    'sum(rate(srp4ctr_served_requests_total{outcome="success"}[5m]))'
    " / sum(rate(srp4ctr_served_requests_total[5m]))"
)
_FIRING = 'count(ALERTS{{alertstate="firing", severity="{}"}}) or vector(0)'
SERVING_VERSION = stat(
    "Serving version",
    "The bundle that answers requests now.",
    "none",
    now("max by (model_version) (srp4ctr_serving_model == 1)", VERSION),
    text="name",
)
_REQUESTS = line(
    4,
    SERVING_VERSION,
    stat(
        "Requests",
        "Ranking requests per second, over all versions.",
        "reqps",
        over_time(rate("srp4ctr_scored_requests_total")),
    ),
    stat(
        "Success rate",
        "Share of calls without an error in the last five minutes.",
        "percentunit",
        over_time(_SUCCESS_RATE),
        limits=thresholds.at_least(0.99, 0.999),
        decimals=2,
    ),
    stat(
        "Latency, p99",
        "99th percentile of the time that a request takes in the server, without the wait "
        "for a free process (queue, in Inference cost).",
        "s",
        over_time(quantile("srp4ctr_request_duration_seconds", 0.99)),
        limits=thresholds.LATENCY,
    ),
)
_RESULTS = line(
    4,
    stat(
        "CTR at position 1",
        "Click rate of the item that the serving version ranked first.",
        "percentunit",
        over_time(of_serving("srp4ctr_online_click_rate_at_top")),
        decimals=1,
    ),
    stat(
        "Calibration",
        "Sum of the serving version's scores / clicks: 1 is calibrated, 2 twice too high; "
        "no value with sampled negatives, because those scores are not probabilities.",
        "none",
        over_time(of_serving("srp4ctr_calibration_ratio")),
        limits=thresholds.CALIBRATION,
        decimals=2,
    ),
    stat(
        "Click → changed score, p99",
        "Time from a synthetic user's click until its scores change.",
        "s",
        over_time(quantile("srp4ctr_probe_seconds", 0.99, "15m")),
        limits=thresholds.FRESHNESS,
    ),
    overridden(
        stat(
            "Alerts firing",
            "Pages need someone now, tickets this week; the runbook says what to do.",
            "none",
            over_time(_FIRING.format("page"), "pages"),
            over_time(_FIRING.format("ticket"), "tickets"),
            limits=thresholds.NONE_OF_IT,
        ),
        matching("byName", "tickets", {"thresholds": thresholds.TICKETS}),
    ),
)
_TRAFFIC = line(
    8,
    lines(
        "Requests by version",
        "Traffic by version: a canary has its share, a retired version none.",
        "reqps",
        rates("srp4ctr_scored_requests_total", "model_version"),
    ),
    lines(
        "Latency by version",
        "Whether a version is slow for every request (p50) or for a few (p99).",
        "s",
        over_time(P50, f"{VERSION} p50"),
        over_time(P99, f"{VERSION} p99"),
        limits=thresholds.LATENCY,
    ),
    lines(
        "Failed and refused",
        "Requests without a ranking: failures of the server, and invalid requests.",
        "reqps",
        rates("srp4ctr_served_requests_total", "ensemble", 'outcome="failure"'),
        rates("srp4ctr_refused_requests_total", "reason"),
        limits=thresholds.NONE_OF_IT,
    ),
    lines(
        "Serving process crashes",
        "Crashes within the last hour; a new process takes over within seconds.",
        "none",
        over_time(
            "round(sum by (model_version) (increase(srp4ctr_serving_crashes_total[1h])))",
            VERSION,
        ),
        limits=thresholds.NONE_OF_IT,
    ),
)
_QUALITY = line(
    8,
    lines(
        "CTR at position 1 by version",
        "Click rate of the item ranked first, with 95 % bounds.",
        "percentunit",
        *with_bounds("srp4ctr_online_click_rate_at_top", RANKED),
    ),
    lines(
        "Calibration by version",
        "Sum of scores / clicks: bids based on scores lose money on either side of 1.",
        "none",
        *with_bounds("srp4ctr_calibration_ratio", RANKED),
        limits=thresholds.CALIBRATION,
    ),
    lines(
        "AUC by version",
        "Probability that a clicked item scores above an unclicked one at the same "
        "position: 0.5 is random.",
        "none",
        *with_bounds("srp4ctr_live_auc", RANKED),
        limits=thresholds.AUC,
    ),
)
_COST = line(
    8,
    lines(
        "Price per million candidates",
        "Price of scoring and of re-encoding per candidate, in monitoring.currency.",
        MONEY,
        by_version(PRICE, RANKED),
        over_time(REENCODED_PRICE, f"{VERSION} re-encoded"),
    ),
    lines(
        "CPU time per 1,000 candidates",
        "CPU time of the serving processes, which grows with traffic.",
        "s",
        by_version(CPU_TIME, RANKED),
        min=0,
    ),
    lines(
        "Encoder runs per request",
        "Serving encodes a history once per request, or not at all if it is cached.",
        "none",
        by_version(ENCODER_RUNS, RANKED),
        limits=thresholds.ENCODER_RUNS,
        min=0,
    ),
)
_SOURCES = line(
    8,
    lines(
        "Freshness",
        "Time until a click reaches the store, and until it changes a score.",
        "s",
        *quantiles("srp4ctr_event_to_sequence_seconds", "stored p50", "stored p99"),
        *quantiles("srp4ctr_probe_seconds", "score p50", "score p99", within="15m"),
        limits=thresholds.FRESHNESS,
    ),
    timeline(
        "Sources",
        "Figures of a source that is down are old.",
        thresholds.words({1: ("up", "green"), 0: ("down", "red")}),
        over_time("min by (job) (up)", "{{job}}"),
        over_time("srp4ctr_source_up", "{{source}} (monitor)"),
    ),
    timeline(
        "Alerts",
        "When each alert but the watchdog fired, to compare with other panels.",
        thresholds.words({1: ("firing", "red"), 0: ("no alerts", "green")}),
        over_time(
            or_none(
                'max by (alertname) (ALERTS{alertstate="firing", severity!="none"})',
                "alertname",
            ),
            "{{alertname}}",
        ),
    ),
)
BOARD = board(
    "overview",
    "Overview",
    "Whether the stack is healthy, and where to look.",
    section("Health", _REQUESTS, _RESULTS),
    section("Traffic", _TRAFFIC),
    section("Quality on matured labels", _QUALITY),
    section("Cost", _COST),
    section("Freshness and sources", _SOURCES),
    has_versions=False,
)
