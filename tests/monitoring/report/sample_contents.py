"""Builders of a report's contents: only the relevant argument is named in a test."""

from typing import Any

from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.report_contents import (
    ChartLine,
    Contents,
    Cost,
    Estimate,
    Inputs,
    Quality,
    ReportScope,
    VersionComparison,
    VersionFigures,
)

START_S = 1_750_000_000.0
DAY = Period(start_s=START_S, end_s=START_S + 86_400)


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, interval=Interval(low=low, high=high))


def a_comparison(
    value: float = 0.02, low: float = 0.01, high: float = 0.03, **changes: Any
) -> VersionComparison:
    fields: dict[str, Any] = {
        "version": "v2",
        "reference": "v1",
        "difference": estimate(value, low, high),
        "impressions": 2000,
        "counted": "v2",
    }
    return VersionComparison(**(fields | changes))


def a_cost(**changes: Any) -> Cost:
    """Return the cost of 10,000 requests of 100 candidates: 1 USD."""
    fields: dict[str, Any] = {
        "requests": 10_000.0,
        "candidates": 1_000_000.0,
        "encoder_runs": 7_500.0,
        "cpu_s": 3600.0,
        "flops": 1e9,
        "reencoded_flops": 2e10,
        "price_per_core_hour": 1.0,
        "p50_s": 0.004,
        "p99_s": 0.0123,
    }
    return Cost(**(fields | changes))


def a_version(version: str, **changes: Any) -> VersionFigures:
    fields: dict[str, Any] = {
        "version": version,
        "is_serving": version == "v1",
        "quality": Quality(
            num_windows=24,
            impressions=10_000,
            clicks=1_000,
            top_impressions=2_000,
            top_click_rate=estimate(0.3, 0.28, 0.32),
            calibration=estimate(1.02, 0.97, 1.07),
            label_coverage=0.99,
            curve=((0.1, 0.11), (0.4, 0.38)),
        ),
        "cost": a_cost(),
        "inputs": Inputs(score_psi=0.05),
    }
    return VersionFigures(**(fields | changes))


def a_scope(**changes: Any) -> ReportScope:
    fields: dict[str, Any] = {
        "period": DAY,
        "covered": DAY,
        "covered_share": 1.0,
        "events": DAY,
        "num_windows": 24,
        "window_s": 3600.0,
        "label_window_s": 1800.0,
        "expected_difference": 0.02,
        "currency": "USD",
        "price_per_core_hour": 1.0,
        "num_alert_rules": 5,
    }
    return ReportScope(**(fields | changes))


def some_contents(**changes: Any) -> Contents:
    points = tuple((START_S + 3600 * hour, 0.3 + hour / 1000) for hour in range(24))
    fields: dict[str, Any] = {
        "scope": a_scope(),
        "versions": (a_version("v1"), a_version("v2")),
        "comparisons": (a_comparison(),),
        "lines": {"top_click_rate": (ChartLine(versions=("v2",), points=points),)},
    }
    return Contents(**(fields | changes))
