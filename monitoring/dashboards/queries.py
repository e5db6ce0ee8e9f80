"""Metric names → PromQL expressions and targets of Grafana's panels."""

from typing import Any

Target = dict[str, Any]
SOURCE = {"type": "prometheus", "uid": "prometheus"}
CHOSEN = 'model_version=~"$model_version"'  # the dashboard's variable
RANKED = 'model_version!="unranked"'  # impressions that a model ranked
# Grafana's unit of money without a sign: its dashboards are files, which know no setting.
MONEY = "currency:"
VERSION = "{{model_version}}"
# Recorded figures that several dashboards show.
PRICE = "model_version:srp4ctr_price_per_million_candidates:rate5m"
REENCODED_PRICE = "model_version:srp4ctr_reencode_price_per_million_candidates:rate5m"
CPU_TIME = "model_version:srp4ctr_cpu_seconds_per_1000_candidates:rate5m"
ENCODER_RUNS = "model_version:srp4ctr_encoder_runs_per_request:rate5m"
P50 = "model_version:srp4ctr_request_duration_seconds:p50_5m"
P99 = "model_version:srp4ctr_request_duration_seconds:p99_5m"


def over_time(expr: str, legend: str = "") -> Target:
    """Return the target of a line: ``expr`` over the dashboard's time."""
    return _target(expr, is_range=True, legendFormat=legend)


def now(expr: str, legend: str = "") -> Target:
    """Return the target of a figure: ``expr`` at the end of the dashboard's time."""
    return _target(expr, is_range=False, legendFormat=legend)


def cells(expr: str) -> Target:
    """Return the target of a table's column: ``expr`` at the end of the time."""
    return _target(expr, is_range=False, format="table")


def buckets(histogram: str, where: str) -> Target:
    """Return the target of a heatmap: the increase of each bucket of ``histogram``."""
    expr = f"sum by (le) (increase({histogram}_bucket{{{where}}}[1m]))"
    return _target(expr, is_range=True, legendFormat="{{le}}", format="heatmap")


def by_version(metric: str, where: str = CHOSEN, which: str = "") -> Target:
    """Return ``metric`` as one line per version; ``which`` ends the lines' names."""
    return over_time(f"{metric}{{{where}}}", f"{VERSION} {which}".strip())


def with_bounds(metric: str, where: str = CHOSEN) -> tuple[Target, ...]:
    """Return ``metric`` as one line per version, with its 95 % bounds."""
    return by_version(metric, where), by_version(f"{metric}_bound", where, "{{bound}}")


def rate(counter: str, by: str = "", where: str = "") -> str:
    """Return the per-second rate of ``counter`` over the last minute."""
    grouped = f" by ({by})" if by else ""
    chosen = f"{{{where}}}" if where else ""
    return f"sum{grouped} (rate({counter}{chosen}[1m]))"


def rates(counter: str, by: str, where: str = "", which: str = "") -> Target:
    """Return a line of ``counter``'s rate per value of the label ``by``."""
    return over_time(rate(counter, by, where), f"{{{{{by}}}}} {which}".strip())


def of_serving(metric: str) -> str:
    """Return ``metric`` of the serving version: one series across promotions."""
    return f"max({metric} and on (model_version) (srp4ctr_serving_model == 1))"


def quantiles(histogram: str, *legends: str, within: str = "5m") -> tuple[Target, ...]:
    """Return lines of ``histogram``'s quantiles; a legend, as "stored p99", names each."""
    return tuple(
        over_time(quantile(histogram, int(legend.rpartition("p")[2]) / 100, within), legend)
        for legend in legends
    )


def quantile(histogram: str, share: float, within: str = "5m") -> str:
    """Return the quantile ``share`` of all that ``histogram`` observed ``within``."""
    total = f"sum by (le) (rate({histogram}_bucket[{within}]))"
    return f"histogram_quantile({share:g}, {total})"


def increase(counter: str) -> str:
    """Return by how much ``counter`` grew over the dashboard's time, by version."""
    return f"sum by (model_version) (increase({counter}{{{CHOSEN}}}[$__range]))"


def over_range(metric: str, weight: str) -> str:
    """Return the mean of ``metric`` over the dashboard's time, by version.

    Live figures are of the last hour: there is one value per hour, with its ``weight``. An
    hour without new labels repeats the one before, so it is left out. The newest value
    is taken where no whole hour is in the time.
    """
    end = "max(srp4ctr_window_end_seconds"
    moved = f"on () ({end}) > {end} offset 1h))"
    value, size = (f"max by (model_version) ({m}{{{CHOSEN}}})" for m in (metric, weight))
    total = f"sum_over_time(({value} * {size} and {moved})[$__range:1h])"
    sizes = f"sum_over_time(({size} and {value} and {moved})[$__range:1h])"
    return f"{total} / {sizes} or {value}"


def or_none(expr: str, label: str) -> str:
    """Return ``expr``, or one series whose ``label`` is "none" while it has none."""
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def _target(expr: str, *, is_range: bool, **fields: str) -> Target:
    target = {"datasource": SOURCE, "editorMode": "code", "expr": expr, **fields}
    return {**target, "instant": not is_range, "range": is_range}
