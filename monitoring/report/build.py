"""Prometheus and a period → the contents of a report.

Quality is read once per window and added up; cost is the increase of counters; comparisons
and drift are the newest values.
"""

from collections.abc import Collection, Mapping, Sequence

from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.prometheus import promql
from srp4ctr.monitoring.report.prometheus.coverage import measure_coverage
from srp4ctr.monitoring.report.prometheus.queries import ReportQueries
from srp4ctr.monitoring.report.report_contents import (
    Contents,
    Cost,
    Inputs,
    Quality,
    ReportScope,
    VersionComparison,
    VersionFigures,
)
from srp4ctr.monitoring.report.version_comparison import version_order

MAX_VERSIONS = 6  # a refresh every hour makes 24 a day


def build_contents(prometheus: Prometheus, period: Period, expected: float) -> Contents:
    """Return the report on ``period``.

    ``expected`` is the setting ``monitoring.expected_difference``: the monitor does not
    export it. Raises ``ValueError`` if Prometheus does not answer, or has no data.
    """
    queries = ReportQueries(
        prometheus, measure_coverage(prometheus, period), period.start_s
    )
    figures = _figures(queries)
    if not figures:
        raise ValueError(
            f"no model served from {period}: the monitor has data, but no impression that "
            "a model ranked, and no request"
        )
    found = queries.comparisons()
    chosen = _chosen(figures, found)
    return Contents(
        scope=_scope(
            queries, period, expected, sorted({*figures} - {*chosen}, key=version_order)
        ),
        versions=tuple(figures[each] for each in chosen),
        comparisons=found,
        lines=queries.lines(chosen),
        alerts=queries.alerts(),
    )


def _figures(queries: ReportQueries) -> dict[str, VersionFigures]:
    """Return the figures of each version that answered a request or was shown."""
    qualities, costs = queries.qualities(), queries.by_version(promql.cost)
    inputs, serving = queries.by_version(promql.inputs), queries.serving()
    price, _ = queries.price()
    served = {*qualities, *(v for v, each in costs.items() if each.get("requests"))}
    return {
        version: VersionFigures(
            version=version,
            is_serving=version in serving,
            quality=qualities.get(version, Quality()),
            cost=Cost(**costs.get(version, {}), price_per_core_hour=price),
            inputs=Inputs(**inputs.get(version, {})),
        )
        for version in served
    }


def _chosen(
    figures: Mapping[str, VersionFigures], comparisons: Sequence[VersionComparison]
) -> list[str]:
    """Return the versions to show, oldest first: those compared, then by impressions."""
    compared = {v for each in comparisons[:1] for v in (each.version, each.reference)}

    def weight(version: str) -> tuple[bool, int]:
        return version in compared, figures[version].quality.impressions

    first = sorted(figures, key=weight, reverse=True)[:MAX_VERSIONS]
    return sorted(first, key=version_order)


def _scope(
    queries: ReportQueries, period: Period, expected: float, left_out: Collection[str]
) -> ReportScope:
    coverage = queries.coverage
    price, currency = queries.price()
    return ReportScope(
        period=period,
        covered=coverage.period,
        covered_share=coverage.share,
        events=coverage.events,
        num_windows=len(coverage.snapshots),
        window_s=coverage.window_s,
        label_window_s=queries.label_window_s(),
        expected_difference=expected,
        currency=currency,
        price_per_core_hour=price,
        num_alert_rules=queries.prometheus.num_alert_rules(),
        left_out=tuple(left_out),
    )
