"""The exporters' current values → tables, for a machine without Prometheus."""

from collections.abc import Iterator, Sequence

from srp4ctr.monitoring.web import units
from srp4ctr.monitoring.web.current_values import CurrentMetric, CurrentValue, ExporterPage
from srp4ctr.monitoring.web.markup import Markup, element

_UNIX_S = 1e9  # a greater number of seconds is a Unix time


def values_table(exporters: Sequence[ExporterPage]) -> Markup:
    """Return a filter, and a table per exporter."""
    label = "Filter by name or help"
    # The script hides the metrics that do not match.
    search = element(
        "input",
        type="search",
        class_="filter",
        placeholder=label,
        aria_label=label,
        data_kept="filter",
    )
    return element("div", search, map(_exporter, exporters), class_="values")


def _exporter(page: ExporterPage) -> Markup:
    shown = [metric for metric in page.metrics if metric.values]
    silent = [metric for metric in page.metrics if not metric.values]
    columns = (element("th", name, scope="col") for name in ("Metric", "Labels", "Now"))
    table = element(
        "table",
        element("thead", element("tr", *columns)),
        (element("tbody", _rows(each), data_text=_searched(each)) for each in shown),
    )
    return element(
        "section",
        element("h2", page.job, " ", element("code", page.url)),
        element("p", page.problem, class_="said") if page.problem else None,
        table if shown else None,
        _silent(page.job, silent) if silent else None,
        class_="exporter",
        data_job=page.job,
    )


def _rows(metric: CurrentMetric) -> Iterator[Markup]:
    about = element(
        "td",
        element("code", metric.name),
        element("span", metric.help, class_="help"),
        class_="metric",
        rowspan=len(metric.values),
    )
    for place, value in enumerate(metric.values):
        labels = (
            element(
                "span", element("span", f"{name} ", class_="muted"), text, class_="label"
            )
            for name, text in value.labels.items()
        )
        what = element("span", value.what, class_="label") if value.what else None
        yield element(
            "tr",
            None if place else about,
            element("td", *labels, what, data_label="Labels"),
            element("td", _written(metric.name, value), class_="number", data_label="Now"),
            class_="same" if place else None,
        )


def _written(name: str, value: CurrentValue) -> str:
    is_time = name.endswith(("_seconds", "_seconds_total")) and value.what != "count"
    if is_time and (value.value or 0) > _UNIX_S:
        return units.text_of(1000 * (value.value or 0), "dateTimeAsIso")
    return units.text_of(value.value, "s" if is_time else "none")


def _silent(job: str, metrics: Sequence[CurrentMetric]) -> Markup:
    count = f"{len(metrics)} metrics without values yet"
    terms = (
        element(
            "div",
            element("dt", element("code", metric.name)),
            element("dd", metric.help),
            data_text=_searched(metric),
        )
        for metric in metrics
    )
    return element(
        "details",
        element("summary", count, data_kept=f"summary of {job}"),
        element("dl", *terms),
        class_="silent",
        data_kept=f"silent of {job}",
    )


def _searched(metric: CurrentMetric) -> str:
    return f"{metric.name} {metric.help}".lower()
