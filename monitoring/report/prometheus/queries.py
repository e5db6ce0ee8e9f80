"""One report's questions to Prometheus, each answered by version.

In: when the monitor was heard. Out: figures, pairs, lines and alerts, as ``contents`` has
them.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import nan

from srp4ctr.monitoring.report.prometheus import promql
from srp4ctr.monitoring.report.prometheus.aggregation import pool
from srp4ctr.monitoring.report.prometheus.alert_history import ALERT_STEP_S, alert_spells
from srp4ctr.monitoring.report.prometheus.coverage import Coverage
from srp4ctr.monitoring.report.prometheus.prometheus_http import Prometheus, Series
from srp4ctr.monitoring.report.report_contents import (
    AlertSpell,
    Contrast,
    Course,
    Points,
    Quality,
)
from srp4ctr.monitoring.report.version_comparison import Pair, contrasts, newer_over_older

POINTS_OF_A_LINE = 150
FINEST_STEP_S = 15.0
SHORTEST_RATE_S = 300.0  # a rate needs two scrapes, however seldom they are
_PREFIX = "srp4ctr_"
Queries = Callable[[float], Mapping[str, str]]
"""Seconds to look back → queries by name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What Prometheus answers on one period."""

    prometheus: Prometheus
    heard: Coverage
    start_s: float
    """Of the period that was asked for."""

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
        for look in self.heard.looks:
            seen: dict[str, dict[str, float]] = defaultdict(dict)
            for each in self.prometheus.at(promql.QUALITY, look.at_s):
                seen[each.labels["model_version"]][_name(each)] = each.newest
            for version, figures in seen.items():
                windows[version].append(figures)
        return {version: pool(figures) for version, figures in windows.items()}

    def contrasts(self) -> tuple[Contrast, ...]:
        """Return the newest comparisons of two versions."""
        found: dict[Pair, dict[str, float]] = defaultdict(dict)
        for each in self._newest(promql.CONTRASTS):
            pair = each.labels["model_version"], each.labels["baseline"]
            found[pair][_name(each)] = each.newest
        return contrasts(found)

    def serving(self) -> frozenset[str]:
        """Return the version that served at the end."""
        found = self._newest(promql.SERVING)
        return frozenset(each.labels["model_version"] for each in found)

    def label_window_s(self) -> float:
        """Return how long an impression waits for its click; NaN of an older monitor."""
        found = self._newest(promql.LABEL_WINDOW)
        return found[0].newest if found else nan

    def price(self) -> tuple[float, str]:
        """Return a core-hour's price and its currency, as last known."""
        found = self._newest(promql.price(self._length_s))
        return (found[0].newest, found[0].labels["currency"]) if found else (nan, "")

    def courses(self, versions: Collection[str]) -> dict[str, tuple[Course, ...]]:
        """Return the lines of ``versions`` over time, by course."""
        step_s = self.heard.period.step_s(POINTS_OF_A_LINE, FINEST_STEP_S)
        found: dict[str, tuple[Course, ...]] = {}
        for name, queries in promql.courses(max(step_s, SHORTEST_RATE_S)).items():
            lines: dict[tuple[str, ...], dict[str, Points]] = defaultdict(dict)
            for part, query in queries.items():
                for each in self.prometheus.over(query, self.heard.period, step_s):
                    lines[_versions(each)][part] = each.points
            found[name] = tuple(
                Course(versions=names, **parts)
                for names, parts in lines.items()
                if "points" in parts and names[0] in versions
            )
        return {**found, "difference": newer_over_older(found["difference"])}

    def alerts(self) -> tuple[AlertSpell, ...]:
        """Return what fired."""
        period = self.heard.period
        step_s = period.step_s(POINTS_OF_A_LINE * 10, ALERT_STEP_S)
        fired = self.prometheus.over(promql.firing(step_s), period, step_s)
        return alert_spells(fired, step_s)

    @property
    def _length_s(self) -> float:
        return max(1.0, self.heard.period.end_s - self.start_s)

    def _newest(self, query: str) -> list[Series]:
        return self.prometheus.at(query, self.heard.period.end_s)


def _name(series: Series) -> str:
    """Return the metric, less its prefix, with the bound or the bin after a slash."""
    labels = series.labels
    parts = (labels["__name__"], labels.get("bound", ""), labels.get("bin", ""))
    return "/".join(filter(None, parts)).removeprefix(_PREFIX)


def _versions(series: Series) -> tuple[str, ...]:
    """Return the version, and the baseline where there is one."""
    labels = series.labels
    return tuple(labels[each] for each in ("model_version", "baseline") if each in labels)
