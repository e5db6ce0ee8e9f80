"""A panel without data and the exporters' pages → why it is empty."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from srp4ctr.monitoring.web.current_values import CurrentMetric, ExporterPage

_STARTED_BY = {
    "monitor": "start it: `srp4ctr monitor run`",
    "stream": "start it: `srp4ctr stream run`",
    "triton": "start it: `srp4ctr stack up`",
    "caller": "it runs while a client ranks",
}
_METRICS = re.compile(r"\b(?:[a-z_]+:)?(?:srp4ctr|nv)_[a-z0-9_]+(?::[a-z0-9_]+)*")


def reason_of(panel: Mapping[str, Any]) -> str:
    """Return the dashboard's own sentence for the empty panel; "" if it has none."""
    text = str(panel.get("fieldConfig", {}).get("defaults", {}).get("noValue", ""))
    return text if " " in text else ""  # a sign such as "–" is no reason


def why_empty(panel: Mapping[str, Any], exporters: Sequence[ExporterPage]) -> str:
    """Return why ``panel`` has no data; names between backticks are code."""
    if reason := reason_of(panel):
        return reason
    names = metric_names(panel)
    found = {name: _metric(name, exporters) for name in names}
    for metric in found.values():
        if metric and not metric.values:
            return f"No data yet: `{metric.name}` has no value so far. {metric.help}"
    away = [
        f"the {page.job} does not answer ({_STARTED_BY.get(page.job, 'is it running?')})"
        for page in exporters
        if page.problem
    ]
    missing = [name for name, metric in found.items() if not metric and ":" not in name]
    if missing and away:
        return f"No data yet: {', '.join(away)}."
    if missing and exporters:
        return f"No data yet: no exporter has `{missing[0]}`."
    recorded = [name for name in names if ":" in name]
    if recorded:
        return f"No data: the rule `{recorded[0]}` had no input in this period."
    return "No data in this period."


def metric_names(panel: Mapping[str, Any]) -> list[str]:
    """Return the metrics and recorded figures that the panel's queries name."""
    text = " ".join(target["expr"] for target in panel.get("targets", ()))
    return list(dict.fromkeys(_METRICS.findall(text)))


def _metric(name: str, exporters: Sequence[ExporterPage]) -> CurrentMetric | None:
    names = (name, re.sub("_(bucket|sum|count)$", "", name))
    metrics = (metric for page in exporters for metric in page.metrics)
    return next((metric for metric in metrics if metric.name in names), None)
