"""Title, description, unit and targets → Grafana's panel: one builder per panel type.

Out: the SDK's builders, to which a dashboard adds thresholds, value mappings, or a text for
an empty panel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    stat,
    statetimeline,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import FieldColor, Panel, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery as Target
from grafana_foundation_sdk.models.common import (
    AxisPlacement,
    BarGaugeDisplayMode,
    BarGaugeNamePlacement,
    BarGaugeValueMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    HeatmapCellLayout,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import FieldColorModeId, ValueMapping
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.text import TextMode

from srp4ctr.monitoring.dashboards.builders.queries import SOURCE
from srp4ctr.monitoring.dashboards.builders.versions import overrides


def stat_of(title: str, why: str, unit: str, *targets: Dataquery) -> stat.Panel:
    """Return a figure without thresholds: blue, with its history behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .targets(lettered(targets))
        .unit(unit)
        .reduce_options(_last())
        .color_scheme(_fixed("blue"))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .orientation(VizOrientation.AUTO)
    )
    one = BigValueTextMode.VALUE if len(targets) == 1 else BigValueTextMode.VALUE_AND_NAME
    return panel.text_mode(one)


def light(
    title: str, why: str, unit: str, limits: ThresholdsConfig, *targets: Dataquery
) -> stat.Panel:
    """Return a figure on green, amber or red."""
    return (
        stat_of(title, why, unit, *targets)
        .thresholds(limits)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .color_mode(BigValueColorMode.BACKGROUND)
    )


def lines(title: str, why: str, unit: str, *targets: Dataquery) -> timeseries.Panel:
    """Return lines over time; a version's line has the version's colour."""
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    hover = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
    return (
        timeseries.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .targets(lettered(targets))
        .unit(unit)
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .line_width(2)
        .fill_opacity(0)
        .show_points(VisibilityMode.AUTO)
        .legend(legend)
        .tooltip(hover.sort(SortOrder.DESCENDING))
        .overrides(overrides([each.build().legend_format or "" for each in targets]))
    )


def limited(panel: timeseries.Panel, limits: ThresholdsConfig) -> timeseries.Panel:
    """Return ``panel`` with its thresholds drawn as dashed lines."""
    dashed = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(limits).thresholds_style(dashed)


def bars(title: str, why: str, unit: str, *targets: Dataquery) -> bargauge.Panel:
    """Return one bar per series, the first on top."""
    return (
        bargauge.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .targets(lettered(targets))
        .unit(unit)
        .min(0)
        .color_scheme(_fixed("blue"))
        .reduce_options(_last())
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.GRADIENT)
        .name_placement(BarGaugeNamePlacement.LEFT)
        .value_mode(BarGaugeValueMode.COLOR)
        .show_unfilled(True)
    )


def judged(panel: bargauge.Panel, limits: ThresholdsConfig) -> bargauge.Panel:
    """Return ``panel`` with bars of green, amber and red."""
    by_limit = FieldColor().mode(FieldColorModeId.THRESHOLDS)
    return panel.thresholds(limits).color_scheme(by_limit)


def heat(title: str, why: str, unit: str, target: Dataquery) -> heatmap.Panel:
    """Return a histogram's buckets over time."""
    colours = (
        heatmap.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .steps(64)
        .exponent(0.5)
        .fill("dark-orange")
    )
    y_axis = heatmap.YAxisConfig().unit(unit).axis_placement(AxisPlacement.LEFT)
    return (
        heatmap.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .targets(lettered((target,)))
        .unit("short")  # of the cells; the axis has the observed value's unit
        .calculate(False)
        .rows_frame(heatmap.RowsHeatmapOptions().layout(HeatmapCellLayout.AUTO))
        .y_axis(y_axis)
        .color(colours)
        .cell_gap(1)
        .show_legend()
        .mode(TooltipDisplayMode.SINGLE)
    )


def timeline(
    title: str, why: str, states: list[ValueMapping], *targets: Dataquery
) -> statetimeline.Panel:
    """Return a timeline of states."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .targets(lettered(targets))
        .unit("none")
        .mappings(states)
        .color_scheme(_fixed("text"))
        .show_value(VisibilityMode.AUTO)
        .row_height(0.9)
        .merge_values(True)
        .fill_opacity(80)
        .line_width(0)
    )


def note(title: str, why: str, markdown: str) -> text.Panel:
    """Return a text on the dashboard."""
    panel = text.Panel().title(title).description(why)
    return panel.mode(TextMode.MARKDOWN).content(markdown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One series of a curve: its name, and the columns of its x and y."""

    name: str
    x: str
    y: str


def curves(panel: Panel, shown: Sequence[Curve]) -> Panel:
    """Return ``panel``, whose data is one table, as the curves ``shown``.

    The SDK's own XY chart writes the options of releases before Grafana 11.1.
    """
    series = [
        {
            "name": {"fixed": curve.name},
            "frame": {"matcher": {"id": "byIndex", "options": 0}},
            "x": {"matcher": {"id": "byName", "options": curve.x}},
            "y": {"matcher": {"id": "byName", "options": curve.y}},
        }
        for curve in shown
    ]
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    options = {
        "mapping": "manual",
        "series": series,
        "legend": legend,
        "tooltip": {"mode": "single", "sort": "none"},
    }
    drawn = {"show": "points+lines", "pointSize": {"fixed": 6}, "lineWidth": 2}
    return panel.type("xychart").options(options).custom(drawn)


def lettered(targets: Sequence[Dataquery]) -> list[Builder[Target]]:
    """Return ``targets``, named A, B, C and so on."""
    return [
        each.ref_id(letter) for each, letter in zip(targets, ascii_uppercase, strict=False)
    ]


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def _fixed(colour: str) -> FieldColor:
    return FieldColor().mode(FieldColorModeId.FIXED).fixed_color(colour)
