"""Prometheus and a period → the contents of a report.

Quality is read once per window and added up; cost is the increase of counters; comparisons
and drift are the newest values. Alerts are Prometheus's own, which outlive the monitor.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import nan

from srp4ctr.errors import OutageError
from srp4ctr.monitoring.prometheus import Prometheus, Series
from srp4ctr.monitoring.quality.version_order import version_order
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.prometheus import promql
from srp4ctr.monitoring.report.prometheus.aggregation import aggregate
from srp4ctr.monitoring.report.prometheus.coverage import Coverage, measure_coverage
from srp4ctr.monitoring.report.report_contents import (
    ChartLine,
    Contents,
    Cost,
    FiredAlert,
    Inputs,
    Points,
    Quality,
    ReportScope,
    VersionComparison,
    VersionFigures,
)
from srp4ctr.monitoring.report.version_comparison import (
    Pair,
    comparisons,
    newer_over_older,
)

MAX_VERSIONS = 6  # a refresh every hour makes 24 a day
POINTS_OF_A_LINE = 150
FINEST_STEP_S = 15.0
SHORTEST_RATE_S = 300.0  # a rate needs two scrapes, at any scrape interval
ALERT_STEP_S = 60.0
# Labels that do not say what the alert is about.
_INTERNAL_LABELS = frozenset(
    {"__name__", "alertname", "alertstate", "severity", "instance", "job", "source", "slo"}
)
_PREFIX = "srp4ctr_"
Queries = Callable[[float], Mapping[str, str]]
"""Seconds to look back → queries by name."""


def build_contents(prometheus: Prometheus, period: Period, expected: float) -> Contents:
    """Return the report on ``period``.

    ``expected`` is the setting ``monitoring.expected_difference``: the monitor does not
    export it. Raises ``OutageError`` if Prometheus does not answer, or has no data yet.
    """
    queries = _Queries(prometheus, measure_coverage(prometheus, period), period)
    figures = _figures(queries)
    if not figures:
        raise OutageError(
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


def _figures(queries: "_Queries") -> dict[str, VersionFigures]:
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
    queries: "_Queries", period: Period, expected: float, left_out: Collection[str]
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


@dataclass(frozen=True, slots=True)
class _Queries:
    """Prometheus's answers for one period."""

    prometheus: Prometheus
    coverage: Coverage
    requested: Period
    """The coverage ends before it where the monitor ended."""

    def by_version(self, queries: Queries) -> dict[str, dict[str, float]]:
        """Return each version's figures by name, as of the end."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for name, query in queries(self._length_s).items():
            for each in self._newest(query):
                found[each.labels["model_version"]][name] = each.newest
        return dict(found)

    def qualities(self) -> dict[str, Quality]:
        """Return each version's quality over all windows of the period."""
        windows: dict[str, list[dict[str, float]]] = defaultdict(list)
        for snapshot in self.coverage.snapshots:
            figures: dict[str, dict[str, float]] = defaultdict(dict)
            for each in self.prometheus.at(promql.QUALITY, snapshot.at_s):
                figures[each.labels["model_version"]][_name(each)] = each.newest
            for version, window in figures.items():
                windows[version].append(window)
        return {version: aggregate(each) for version, each in windows.items()}

    def comparisons(self) -> tuple[VersionComparison, ...]:
        """Return the newest comparisons of two versions."""
        found: dict[Pair, dict[str, float]] = defaultdict(dict)
        for each in self._newest(promql.COMPARISONS):
            pair = each.labels["model_version"], each.labels["baseline"]
            found[pair][_name(each)] = each.newest
        return comparisons(found)

    def serving(self) -> frozenset[str]:
        """Return the version that was serving at the end."""
        found = self._newest(promql.SERVING)
        return frozenset(each.labels["model_version"] for each in found)

    def label_window_s(self) -> float:
        """Return how long an impression waits for its click; NaN for an older monitor."""
        found = self._newest(promql.LABEL_WINDOW)
        return found[0].newest if found else nan

    def price(self) -> tuple[float, str]:
        """Return the price per core-hour and its currency, as last known."""
        found = self._newest(promql.price(self._length_s))
        return (found[0].newest, found[0].labels["currency"]) if found else (nan, "")

    def lines(self, versions: Collection[str]) -> dict[str, tuple[ChartLine, ...]]:
        """Return the lines of ``versions`` over time, by the names of ``promql.lines``."""
        step_s = self.coverage.period.step_s(POINTS_OF_A_LINE, FINEST_STEP_S)
        found: dict[str, tuple[ChartLine, ...]] = {}
        for name, queries in promql.lines(max(step_s, SHORTEST_RATE_S)).items():
            parts: dict[tuple[str, ...], dict[str, Points]] = defaultdict(dict)
            for part, query in queries.items():
                for each in self._over(query, step_s):
                    parts[_versions(each)][part] = each.points
            found[name] = tuple(
                ChartLine(versions=names, **fields)
                for names, fields in parts.items()
                if "points" in fields and names[0] in versions
            )
        return {**found, "difference": newer_over_older(found["difference"])}

    def alerts(self) -> tuple[FiredAlert, ...]:
        """Return each alert that fired in the requested period, by its first time."""
        period = self.requested
        step_s = period.step_s(POINTS_OF_A_LINE * 10, ALERT_STEP_S)
        fired = self.prometheus.over(
            promql.firing(step_s), period.start_s, period.end_s, step_s
        )
        found = (_alert(each, step_s) for each in fired)
        return tuple(sorted(found, key=lambda each: (each.first_s, each.name)))

    @property
    def _length_s(self) -> float:
        return max(1.0, self.coverage.period.end_s - self.requested.start_s)

    def _newest(self, query: str) -> list[Series]:
        return self.prometheus.at(query, self.coverage.period.end_s)

    def _over(self, query: str, step_s: float) -> list[Series]:
        period = self.coverage.period
        return self.prometheus.over(query, period.start_s, period.end_s, step_s)


def _alert(fired: Series, step_s: float) -> FiredAlert:
    """Return an alert; each point means that it fired in the ``step_s`` before."""
    labels = fired.labels
    return FiredAlert(
        name=labels.get("alertname", ""),
        severity=labels.get("severity", ""),
        labels={n: v for n, v in labels.items() if n not in _INTERNAL_LABELS},
        first_s=fired.points[0][0] - step_s,
        last_s=fired.points[-1][0],
        firing_s=len(fired.points) * step_s,
    )


def _name(series: Series) -> str:
    """Return the metric without its prefix, then a slash and the bound or the bin."""
    labels = series.labels
    parts = (labels["__name__"], labels.get("bound", ""), labels.get("bin", ""))
    return "/".join(filter(None, parts)).removeprefix(_PREFIX)


def _versions(series: Series) -> tuple[str, ...]:
    """Return the version, and the baseline where there is one."""
    labels = series.labels
    return tuple(labels[each] for each in ("model_version", "baseline") if each in labels)
