"""The newest quality, cost and latency of each version, in a row."""

from grafana_foundation_sdk.builders import table

from srp4ctr.monitoring.dashboards.builders import thresholds
from srp4ctr.monitoring.dashboards.builders.queries import CHOSEN, MONEY
from srp4ctr.monitoring.dashboards.builders.tables import Column, table_of

VERDICTS = {
    1: ("better", "green"),
    0: ("undecided", "blue"),
    -1: ("worse", "red"),
}


def version_table() -> table.Panel:
    """Return the table."""
    why = "Quality, cost and latency of each version, in a row."
    columns = (*_clicks(), *_scores(), *_cost())
    return table_of("Versions at a glance", why, {"model_version": "Version"}, columns)


def _clicks() -> tuple[Column, ...]:
    at_top = "srp4ctr_online_click_rate_at_top"
    bound = f"{at_top}_bound"
    serves = thresholds.words({1: ("serves", "green")})
    return (
        Column(name="Serves", expr=_of("srp4ctr_serving_model"), words=serves),
        Column(
            name="Verdict", expr=_of("srp4ctr_verdict"), words=thresholds.words(VERDICTS)
        ),
        Column(name="Impressions", expr=_of("srp4ctr_matured_impressions"), unit="short"),
        _share("Coverage", _of("srp4ctr_label_coverage")),
        _share("CTR at 1", _of(at_top)),
        _share("low", _of(bound, ', bound="low"')),
        _share("high", _of(bound, ', bound="high"')),
    )


def _scores() -> tuple[Column, ...]:
    return (
        Column(
            name="Calibration",
            expr=_of("srp4ctr_calibration_ratio"),
            decimals=3,
            limits=thresholds.calibration(),
        ),
        Column(
            name="ECE",
            expr=_of("srp4ctr_expected_calibration_error"),
            decimals=3,
            limits=thresholds.calibration_error(),
        ),
        Column(
            name="NE",
            expr=_of("srp4ctr_live_normalized_entropy"),
            decimals=3,
            limits=thresholds.entropy(),
        ),
        Column(
            name="AUC",
            expr=_of("srp4ctr_live_auc"),
            decimals=3,
            limits=thresholds.auc(),
        ),
    )


def _cost() -> tuple[Column, ...]:
    return (
        Column(
            name="Price per 1 M",
            expr=_of("model_version:srp4ctr_price_per_million_candidates:rate5m"),
            unit=MONEY,
            decimals=4,
        ),
        Column(
            name="p99",
            expr=_of("model_version:srp4ctr_request_duration_seconds:p99_5m"),
            unit="s",
            limits=thresholds.latency(),
        ),
    )


def _share(name: str, expr: str) -> Column:
    return Column(name=name, expr=expr, unit="percentunit", decimals=1)


def _of(metric: str, where: str = "") -> str:
    return f"max by (model_version) ({metric}{{{CHOSEN}{where}}})"
