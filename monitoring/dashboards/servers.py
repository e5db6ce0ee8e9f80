"""Servers: every Triton, and all of them together.

In: the monitor's figures of each server, and their recorded totals. Out: a dashboard.
"""

from srp4ctr.features.bundles.drift_reference import MIN_VALUES
from srp4ctr.monitoring.dashboards import thresholds
from srp4ctr.monitoring.dashboards.layout import board, line, section
from srp4ctr.monitoring.dashboards.panels import column, lines, stat, table, timeline
from srp4ctr.monitoring.dashboards.queries import MONEY, Target, over_time

SERVER = "{{server}}"
_OWN = "server:srp4ctr_server_"
_ALL = "srp4ctr:server_"
_UP = "max by (server) (srp4ctr_server_up)"
_READY = "max by (server) (srp4ctr_server_ready)"
_STATE = f"{_UP} + {_READY}"
_PRICE = "price_per_million_candidates:rate5m"
_TOO_FEW = f"fewer than {MIN_VALUES} values in the window"
_STATES = thresholds.words(
    {2: ("serves", "green"), 1: ("no model", "orange"), 0: ("down", "red")}
)


def _each(record: str) -> Target:
    """Return a line per server."""
    return over_time(f"{_OWN}{record}", SERVER)


def _both(record: str) -> tuple[Target, Target]:
    """Return a line per server, and one of all servers."""
    return _each(record), over_time(f"{_ALL}{record}", "all servers")


_TOTAL = line(
    4,
    stat(
        "Servers down",
        "Servers whose metrics page does not answer the monitor.",
        "short",
        over_time(f"count({_UP} == 0) or vector(0)"),
        limits=thresholds.NONE_OF_IT,
    ),
    stat(
        "Servers that serve",
        "Servers that answer the monitor and have loaded rank_clicks.",
        "short",
        over_time(f"sum({_READY})"),
    ),
    stat(
        "Success rate",
        "Share of all servers' valid calls that succeed, over five minutes.",
        "percentunit",
        over_time(f"sum({_ALL}availability:ratio_rate5m)"),
        limits=thresholds.at_least(0.99, 0.999),
        decimals=2,
        noValue="no calls",
    ),
    stat(
        "Latency, p99",
        "99th percentile of a call's time in the step, over all servers.",
        "s",
        over_time(f"max({_ALL}request_duration_seconds:p99_5m)"),
        limits=thresholds.LATENCY,
        noValue="no calls",
    ),
    stat(
        "Queue",
        "Mean wait of a call for a free process, over all servers.",
        "s",
        over_time(f"max({_ALL}queue_seconds:mean5m)"),
        limits=thresholds.at_most(0.01, 0.05),
        noValue="no calls",
    ),
    stat(
        "Price per million candidates",
        "CPU price of all servers' candidates, in monitoring.currency.",
        MONEY,
        over_time(f"max({_ALL}{_PRICE})"),
        noValue="no calls",
    ),
)
_TABLE = line(
    7,
    table(
        "Each server",
        "State, calls, success rate, p99 latency, queue, missing features and drift now.",
        {"server": "Server"},
        column("State", _STATE, mappings=_STATES),
        column("Calls/s", f"{_OWN}requests:rate5m", "reqps", decimals=2),
        column(
            "Success",
            f"{_OWN}availability:ratio_rate5m",
            "percentunit",
            decimals=2,
            thresholds=thresholds.at_least(0.95, 0.999),
        ),
        column(
            "p99",
            f"{_OWN}request_duration_seconds:p99_5m > 0",
            "s",
            thresholds=thresholds.LATENCY,
        ),
        column("Queue", f"{_OWN}queue_seconds:mean5m", "s"),
        column("Without features", f"{_OWN}missing_features:ratio_rate5m", "percentunit"),
        column(
            "PSI of scores", f"{_OWN}score_psi:max", decimals=3, thresholds=thresholds.DRIFT
        ),
    ),
)
_STATES_OVER_TIME = line(
    6,
    timeline(
        "State",
        "Whether each server serves, lacks its model, or is down.",
        _STATES,
        over_time(_STATE, SERVER),
    ),
)
_CALLS = line(
    8,
    lines(
        "Calls by server",
        "Valid calls per second: a balancer gives each server its share.",
        "reqps",
        *_both("requests:rate5m"),
        min=0,
    ),
    lines(
        "Success rate by server",
        "Share of valid calls that succeed: a server that fails hides in the total.",
        "percentunit",
        *_both("availability:ratio_rate5m"),
        limits=thresholds.at_least(0.95, 0.999),
    ),
    lines(
        "Latency p99 by server",
        "99th percentile of a call's time in the step, without the queue.",
        "s",
        *_both("request_duration_seconds:p99_5m"),
        limits=thresholds.LATENCY,
    ),
    lines(
        "Queue by server",
        "Mean wait of a call for a free process, in all steps together.",
        "s",
        *_both("queue_seconds:mean5m"),
        limits=thresholds.at_most(0.01, 0.05),
        min=0,
    ),
)
_INPUTS = line(
    8,
    lines(
        "Without features by server",
        "Share of users served without the feature store.",
        "percentunit",
        *_both("missing_features:ratio_rate5m"),
        limits=thresholds.at_most(0.01, 0.05),
        min=0,
    ),
    lines(
        "PSI of scores by server",
        "Largest stability index of live scores against training, over versions.",
        "none",
        *_both("score_psi:max"),
        limits=thresholds.DRIFT,
        min=0,
        noValue=_TOO_FEW,
    ),
    lines(
        "PSI of features by server",
        "Stability index of the feature that drifted most.",
        "none",
        *_both("feature_psi:max"),
        limits=thresholds.DRIFT,
        min=0,
        noValue=_TOO_FEW,
    ),
    lines(
        "Price per million candidates by server",
        "CPU price of a server's candidates, in monitoring.currency.",
        MONEY,
        *_both(_PRICE),
        min=0,
    ),
)
BOARD = board(
    "servers",
    "Servers",
    "Which server is away, lacks its model, fails, waits or drifts.",
    section("All servers", _TOTAL),
    section("Each server", _TABLE, _STATES_OVER_TIME),
    section("Calls", _CALLS),
    section("Inputs and cost", _INPUTS),
    has_versions=False,
)
