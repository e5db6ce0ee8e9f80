"""Metric names → PromQL expressions and targets of Grafana's panels."""

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
CHOSEN = 'model_version=~"$model_version"'  # the dashboard's variable
RANKED = 'model_version!="unranked"'  # impressions that a model ranked
MONEY = "currencyUSD"  # Grafana's unit for the default of monitoring.currency
VERSION = "{{model_version}}"


def over_time(expr: str, legend: str = "") -> Dataquery:
    """Return the target of a line: ``expr`` over the dashboard's time."""
    return _target(expr).range().legend_format(legend)


def now(expr: str, legend: str = "") -> Dataquery:
    """Return the target of a figure: ``expr`` at the end of the dashboard's time."""
    return _target(expr).instant().legend_format(legend)


def cells(expr: str) -> Dataquery:
    """Return the target of a table's column: ``expr`` at the end of the time."""
    return _target(expr).instant().format(PromQueryFormat.TABLE)


def buckets(histogram: str, where: str) -> Dataquery:
    """Return the target of a heatmap: the increase of each bucket of ``histogram``."""
    expr = f"sum by (le) (increase({histogram}_bucket{{{where}}}[1m]))"
    return over_time(expr, "{{le}}").format(PromQueryFormat.HEATMAP)


def by_version(metric: str, where: str = CHOSEN) -> Dataquery:
    """Return ``metric`` as one line per version."""
    return over_time(f"{metric}{{{where}}}", VERSION)


def with_bounds(metric: str, where: str = CHOSEN) -> tuple[Dataquery, ...]:
    """Return ``metric`` as one line per version, with its 95 % bounds."""
    bounds = over_time(f"{metric}_bound{{{where}}}", f"{VERSION} {{{{bound}}}}")
    return by_version(metric, where), bounds


def rate(counter: str, by: str = "", where: str = "") -> str:
    """Return the per-second rate of ``counter`` over the last minute."""
    grouped = f" by ({by})" if by else ""
    chosen = f"{{{where}}}" if where else ""
    return f"sum{grouped} (rate({counter}{chosen}[1m]))"


def of_serving(metric: str) -> str:
    """Return ``metric`` of the serving version: one series across promotions."""
    return f"max({metric} and on (model_version) (srp4ctr_serving_model == 1))"


def quantiles(histogram: str, *legends: str, within: str = "5m") -> tuple[Dataquery, ...]:
    """Return lines of ``histogram``'s quantiles; a legend, as "stored p99", names each."""
    return tuple(
        over_time(quantile(histogram, int(legend.rpartition("p")[2]) / 100, within), legend)
        for legend in legends
    )


def quantile(histogram: str, share: float, within: str = "5m") -> str:
    """Return the quantile ``share`` of all that ``histogram`` observed ``within``."""
    total = f"sum by (le) (rate({histogram}_bucket[{within}]))"
    return f"histogram_quantile({share:g}, {total})"


def or_none(expr: str, label: str) -> str:
    """Return ``expr``, or one series whose ``label`` is "none" while it has none."""
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def _target(expr: str) -> Dataquery:
    return Dataquery().expr(expr).datasource(SOURCE).editor_mode(QueryEditorMode.CODE)
