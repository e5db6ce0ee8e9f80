"""Prometheus and a period → the contents of a report.

Quality is read once a window and added up; cost is what counters rose by; verdicts and
drift are the newest there are.
"""

from collections.abc import Collection, Mapping, Sequence

from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.prometheus import promql
from srp4ctr.monitoring.report.prometheus.coverage import hear
from srp4ctr.monitoring.report.prometheus.prometheus_http import Prometheus
from srp4ctr.monitoring.report.prometheus.queries import Asked
from srp4ctr.monitoring.report.report_contents import (
    Contents,
    Contrast,
    Cost,
    Grounds,
    Inputs,
    Quality,
    VersionFigures,
)
from srp4ctr.monitoring.report.version_comparison import by_age

MOST_VERSIONS = 6  # more is no comparison, and a refresh an hour makes 24 a day


def gather(prometheus: Prometheus, period: Period, expected: float) -> Contents:
    """Return the report on ``period``.

    ``expected`` is the monitor's setting ``expected_difference``, which it does not tell.
    ``ValueError`` where Prometheus is away, or has nothing of that time.
    """
    asked = Asked(prometheus, hear(prometheus, period), period.start_s)
    figures = _figures(asked)
    if not figures:
        raise ValueError(
            f"no model served from {period}: the monitor was heard, but of no impression "
            "that a model ranked, and of no request"
        )
    found = asked.contrasts()
    chosen = _chosen(figures, found)
    return Contents(
        grounds=_grounds(
            asked, period, expected, sorted({*figures} - {*chosen}, key=by_age)
        ),
        versions=tuple(figures[each] for each in chosen),
        contrasts=found,
        courses=asked.courses(chosen),
        alerts=asked.alerts(),
    )


def _figures(asked: Asked) -> dict[str, VersionFigures]:
    """Return what is known of each version that was asked or shown."""
    qualities, costs = asked.qualities(), asked.by_version(promql.cost)
    inputs, serving = asked.by_version(promql.inputs), asked.serving()
    price, _ = asked.price()
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
    figures: Mapping[str, VersionFigures], contrasts: Sequence[Contrast]
) -> list[str]:
    """Return the versions to show, the oldest first: those compared, and the most shown."""
    compared = {v for each in contrasts[:1] for v in (each.version, each.reference)}

    def weight(version: str) -> tuple[bool, int]:
        return version in compared, figures[version].quality.impressions

    first = sorted(figures, key=weight, reverse=True)[:MOST_VERSIONS]
    return sorted(first, key=by_age)


def _grounds(
    asked: Asked, period: Period, expected: float, left_out: Collection[str]
) -> Grounds:
    heard = asked.heard
    price, currency = asked.price()
    return Grounds(
        period=period,
        heard=heard.period,
        heard_share=heard.share,
        events=heard.events,
        num_windows=len(heard.looks),
        window_s=heard.window_s,
        label_window_s=asked.label_window_s(),
        expected_difference=expected,
        currency=currency,
        price_per_core_hour=price,
        num_alert_rules=asked.prometheus.num_alert_rules(),
        left_out=tuple(left_out),
    )
