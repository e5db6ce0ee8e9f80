"""Overview: health as figures on green, amber or red, then as lines over time.

In: the metrics of all exporters, aggregated. Out: the dashboard that opens first.
"""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.common import BigValueTextMode

from srp4ctr.monitoring.dashboards.builders import thresholds
from srp4ctr.monitoring.dashboards.builders.grid import line, new_board, section
from srp4ctr.monitoring.dashboards.builders.panels import (
    light,
    limited,
    lines,
    stat_of,
    timeline,
)
from srp4ctr.monitoring.dashboards.builders.queries import (
    MONEY,
    RANKED,
    VERSION,
    by_version,
    now,
    of_serving,
    or_none,
    over_time,
    quantile,
    quantiles,
    rate,
    with_bounds,
)
from srp4ctr.monitoring.dashboards.builders.versions import matching

_SUCCESS_RATE = (
    'sum(rate(srp4ctr_served_requests_total{outcome="success"}[5m]))'
    " / sum(rate(srp4ctr_served_requests_total[5m]))"
)


def board() -> Dashboard:
    """Return the dashboard."""
    made = new_board(
        "overview", "Overview", "Whether the stack is healthy, and where to look."
    )
    section(made, "Health")
    line(
        made,
        4,
        (6, serving_version()),
        (6, _requests()),
        (6, _success_rate()),
        (6, _latency()),
    )
    line(
        made, 4, (6, _click_rate()), (6, _calibration()), (6, _freshness()), (6, _alerts())
    )
    _traffic(made)
    _quality(made)
    _cost(made)
    _sources(made)
    return made


def serving_version() -> stat.Panel:
    """Return the panel that names the bundle whose scores are shown."""
    return stat_of(
        "Serving version",
        "The bundle that answers requests now.",
        "none",
        now("max by (model_version) (srp4ctr_serving_model == 1)", VERSION),
    ).text_mode(BigValueTextMode.NAME)


def _requests() -> stat.Panel:
    why = "Ranking requests per second, over all versions."
    ranked = over_time(rate("srp4ctr_scored_requests_total"))
    return stat_of("Requests", why, "reqps", ranked)


def _success_rate() -> stat.Panel:
    return light(
        "Success rate",
        "Share of calls without an error in the last five minutes.",
        "percentunit",
        thresholds.at_least(0.99, 0.999),
        over_time(_SUCCESS_RATE),
    ).decimals(2)


def _latency() -> stat.Panel:
    return light(
        "Latency, p99",
        "99th percentile of the time that a request takes in the server.",
        "s",
        thresholds.latency(),
        over_time(quantile("srp4ctr_request_duration_seconds", 0.99)),
    )


def _click_rate() -> stat.Panel:
    return stat_of(
        "CTR at position 1",
        "Click rate of the item that the serving version ranked first.",
        "percentunit",
        over_time(of_serving("srp4ctr_online_click_rate_at_top")),
    ).decimals(1)


def _calibration() -> stat.Panel:
    return light(
        "Calibration",
        "Sum of the serving version's scores / clicks: 1 is calibrated, 2 twice too high.",
        "none",
        thresholds.calibration(),
        over_time(of_serving("srp4ctr_calibration_ratio")),
    ).decimals(2)


def _freshness() -> stat.Panel:
    return light(
        "Click → changed score, p99",
        "Time from a synthetic user's click until its scores change.",
        "s",
        thresholds.freshness(),
        over_time(quantile("srp4ctr_probe_seconds", 0.99, "15m")),
    )


def _alerts() -> stat.Panel:
    def firing(severity: str) -> str:
        return f'count(ALERTS{{alertstate="firing", severity="{severity}"}}) or vector(0)'

    return light(
        "Alerts firing",
        "Pages need someone now, tickets this week; the runbook says what to do.",
        "none",
        thresholds.none_of_it(),
        over_time(firing("page"), "pages"),
        over_time(firing("ticket"), "tickets"),
    ).overrides(
        [matching("byName", "tickets", {"thresholds": thresholds.tickets().build()})]
    )


def _traffic(made: Dashboard) -> None:
    section(made, "Traffic")
    requests = lines(
        "Requests by version",
        "Traffic by version: a canary has its share, a retired version none.",
        "reqps",
        over_time(rate("srp4ctr_scored_requests_total", by="model_version"), VERSION),
    )
    answers = lines(
        "Latency by version",
        "Whether a version is slow for every request (p50) or for a few (p99).",
        "s",
        over_time(
            "model_version:srp4ctr_request_duration_seconds:p50_5m", f"{VERSION} p50"
        ),
        over_time(
            "model_version:srp4ctr_request_duration_seconds:p99_5m", f"{VERSION} p99"
        ),
    )
    failed = rate("srp4ctr_served_requests_total", "ensemble", 'outcome="failure"')
    errors = lines(
        "Failed and refused",
        "Requests without a ranking: failures of the server, and invalid requests.",
        "reqps",
        over_time(failed, "{{ensemble}}"),
        over_time(rate("srp4ctr_refused_requests_total", by="reason"), "{{reason}}"),
    )
    crashes = lines(
        "Serving process crashes",
        "Crashes within the last hour; a new process takes over within seconds.",
        "none",
        over_time(
            "round(sum by (model_version) (increase(srp4ctr_serving_crashes_total[1h])))",
            VERSION,
        ),
    )
    answers = limited(answers, thresholds.latency())
    errors, crashes = (limited(each, thresholds.none_of_it()) for each in (errors, crashes))
    line(made, 8, (6, requests), (6, answers), (6, errors), (6, crashes))


def _quality(made: Dashboard) -> None:
    section(made, "Quality on matured labels")
    clicked = lines(
        "CTR at position 1 by version",
        "Click rate of the item ranked first, with 95 % bounds.",
        "percentunit",
        *with_bounds("srp4ctr_online_click_rate_at_top", RANKED),
    )
    calibration = lines(
        "Calibration by version",
        "Sum of scores / clicks: bids based on scores lose money on either side of 1.",
        "none",
        *with_bounds("srp4ctr_calibration_ratio", RANKED),
    )
    ranked = lines(
        "AUC by version",
        "Probability that a clicked item scores above an unclicked one: 0.5 is random.",
        "none",
        *with_bounds("srp4ctr_live_auc", RANKED),
    )
    calibration = limited(calibration, thresholds.calibration())
    ranked = limited(ranked, thresholds.auc())
    line(made, 8, (8, clicked), (8, calibration), (8, ranked))


def _cost(made: Dashboard) -> None:
    section(made, "Cost")
    price = lines(
        "Price per million candidates",
        "Price of scoring, and of re-encoding the history per candidate.",
        MONEY,
        by_version("model_version:srp4ctr_price_per_million_candidates:rate5m", RANKED),
        over_time(
            "model_version:srp4ctr_reencode_price_per_million_candidates:rate5m",
            f"{VERSION} re-encoded",
        ),
    )
    cpu = lines(
        "CPU time per 1,000 candidates",
        "CPU time of the serving processes, which grows with traffic.",
        "s",
        by_version("model_version:srp4ctr_cpu_seconds_per_1000_candidates:rate5m", RANKED),
    )
    runs = lines(
        "Encoder runs per request",
        "Serving encodes a history once per request, or not at all if it is cached.",
        "none",
        by_version("model_version:srp4ctr_encoder_runs_per_request:rate5m", RANKED),
    )
    runs = limited(runs.min(0), thresholds.encoder_runs())
    line(made, 8, (8, price), (8, cpu.min(0)), (8, runs))


def _sources(made: Dashboard) -> None:
    section(made, "Freshness and sources")
    fresh = lines(
        "Freshness",
        "Time until a click reaches the store, and until it changes a score.",
        "s",
        *quantiles("srp4ctr_event_to_sequence_seconds", "stored p50", "stored p99"),
        *quantiles("srp4ctr_probe_seconds", "score p50", "score p99", within="15m"),
    )
    states = thresholds.words({1: ("up", "green"), 0: ("down", "red")})
    sources = timeline(
        "Sources",
        "Figures of a source that is down are old.",
        states,
        over_time("min by (job) (up)", "{{job}}"),
        over_time("srp4ctr_source_up", "{{source}} (monitor)"),
    )
    alerts = timeline(
        "Alerts",
        "When each alert fired, to compare with other panels.",
        thresholds.words({1: ("firing", "red"), 0: ("no alerts", "green")}),
        over_time(
            or_none('max by (alertname) (ALERTS{alertstate="firing"})', "alertname"),
            "{{alertname}}",
        ),
    )
    line(made, 8, (8, limited(fresh, thresholds.freshness())), (8, sources), (8, alerts))
