"""Overview: is it well? Figures on green, amber or red, then their course.

In: everything that the exporters show, summed up. Out: the dashboard that opens first.
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

_ANSWERED = (
    'sum(rate(srp4ctr_served_requests_total{outcome="success"}[5m]))'
    " / sum(rate(srp4ctr_served_requests_total[5m]))"
)


def board() -> Dashboard:
    """Return the dashboard."""
    made = new_board("overview", "Overview", "Is it well? And if not, where to look next.")
    section(made, "Is it well?")
    line(made, 4, (6, serving_version()), (6, _requests()), (6, _answered()), (6, _slow()))
    line(made, 4, (6, _clicked()), (6, _honest()), (6, _fresh()), (6, _alerts()))
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
    why = "How many users a second are ranked, by all versions together."
    ranked = over_time(rate("srp4ctr_scored_requests_total"))
    return stat_of("Requests", why, "reqps", ranked)


def _answered() -> stat.Panel:
    return light(
        "Answered",
        "The share of calls that Triton answered without an error of late.",
        "percentunit",
        thresholds.at_least(0.99, 0.999),
        over_time(_ANSWERED),
    ).decimals(2)


def _slow() -> stat.Panel:
    return light(
        "Answer time, p99",
        "Of a hundred requests one takes longer than this in the server.",
        "s",
        thresholds.answer_time(),
        over_time(quantile("srp4ctr_request_duration_seconds", 0.99)),
    )


def _clicked() -> stat.Panel:
    return stat_of(
        "CTR at position 1",
        "How often the item that the serving version put first is clicked.",
        "percentunit",
        over_time(of_serving("srp4ctr_online_click_rate_at_top")),
    ).decimals(1)


def _honest() -> stat.Panel:
    return light(
        "Calibration",
        "The serving version's scores over clicks: 1 is honest, 2 promises twice too much.",
        "none",
        thresholds.calibration(),
        over_time(of_serving("srp4ctr_calibration_ratio")),
    ).decimals(2)


def _fresh() -> stat.Panel:
    return light(
        "Click → changed score, p99",
        "How old the world is that a score was made of, as a synthetic user sees it.",
        "s",
        thresholds.freshness(),
        over_time(quantile("srp4ctr_probe_seconds", 0.99, "15m")),
    )


def _alerts() -> stat.Panel:
    def firing(severity: str) -> str:
        return f'count(ALERTS{{alertstate="firing", severity="{severity}"}}) or vector(0)'

    return light(
        "Alerts firing",
        "Pages want someone now and tickets this week; the runbook says what to do.",
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
        "Who answers how much: a canary has its share, and a retired version none.",
        "reqps",
        over_time(rate("srp4ctr_scored_requests_total", by="model_version"), VERSION),
    )
    answers = lines(
        "Answer time by version",
        "Whether a version is slow for everyone (p50) or for a few (p99).",
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
        "What callers did not get: failures are ours, and refusals are of what they sent.",
        "reqps",
        over_time(failed, "{{ensemble}}"),
        over_time(rate("srp4ctr_refused_requests_total", by="reason"), "{{reason}}"),
    )
    died = lines(
        "Serving processes that died",
        "Within an hour; each is replaced in seconds, and costs a call or two.",
        "none",
        over_time(
            "round(sum by (model_version) (increase(srp4ctr_serving_crashes_total[1h])))",
            VERSION,
        ),
    )
    answers = limited(answers, thresholds.answer_time())
    errors, died = (limited(each, thresholds.none_of_it()) for each in (errors, died))
    line(made, 8, (6, requests), (6, answers), (6, errors), (6, died))


def _quality(made: Dashboard) -> None:
    section(made, "Quality, of matured labels")
    clicked = lines(
        "CTR at position 1 by version",
        "What the model is for, with 95 % bounds, without which a CTR misleads.",
        "percentunit",
        *with_bounds("srp4ctr_online_click_rate_at_top", RANKED),
    )
    honest = lines(
        "Calibration by version",
        "Scores over clicks: whoever bids by them loses money on either side of 1.",
        "none",
        *with_bounds("srp4ctr_calibration_ratio", RANKED),
    )
    ranked = lines(
        "AUC by version",
        "Whether a clicked item is scored above one that was passed over: 0.5 is chance.",
        "none",
        *with_bounds("srp4ctr_live_auc", RANKED),
    )
    honest = limited(honest, thresholds.calibration())
    ranked = limited(ranked, thresholds.auc())
    line(made, 8, (8, clicked), (8, honest), (8, ranked))


def _cost(made: Dashboard) -> None:
    section(made, "Cost")
    price = lines(
        "Price of a million candidates",
        "What scoring costs, and what it would with a history encoded per candidate.",
        MONEY,
        by_version("model_version:srp4ctr_price_per_million_candidates:rate5m", RANKED),
        over_time(
            "model_version:srp4ctr_reencode_price_per_million_candidates:rate5m",
            f"{VERSION} unfolded",
        ),
    )
    cpu = lines(
        "CPU time of 1,000 candidates",
        "The serving processes' own time, which is what more traffic will need more of.",
        "s",
        by_version("model_version:srp4ctr_cpu_seconds_per_1000_candidates:rate5m", RANKED),
    )
    runs = lines(
        "Encoder runs a request",
        "The promise of folded serving: a history is encoded once, or not at all if kept.",
        "none",
        by_version("model_version:srp4ctr_encoder_runs_per_request:rate5m", RANKED),
    )
    runs = limited(runs.min(0), thresholds.encoder_runs())
    line(made, 8, (8, price), (8, cpu.min(0)), (8, runs))


def _sources(made: Dashboard) -> None:
    section(made, "Freshness and sources")
    fresh = lines(
        "Freshness",
        "How long a click needs to reach the store, and then a score.",
        "s",
        *quantiles("srp4ctr_event_to_sequence_seconds", "stored p50", "stored p99"),
        *quantiles("srp4ctr_probe_seconds", "score p50", "score p99", within="15m"),
    )
    heard = thresholds.words({1: ("heard", "green"), 0: ("silent", "red")})
    sources = timeline(
        "Sources",
        "A figure whose source is silent is old, however calm it looks.",
        heard,
        over_time("min by (job) (up)", "{{job}}"),
        over_time("srp4ctr_source_up", "{{source}}, as the monitor hears"),
    )
    alerts = timeline(
        "Alerts",
        "When each alert fired, so that it can be laid beside what else changed then.",
        thresholds.words({1: ("fires", "red"), 0: ("quiet", "green")}),
        over_time(
            or_none('max by (alertname) (ALERTS{alertstate="firing"})', "alertname"),
            "{{alertname}}",
        ),
    )
    line(made, 8, (8, limited(fresh, thresholds.freshness())), (8, sources), (8, alerts))
