"""Scores in ten bins → the calibration curve: predicted against observed click rate.

In: each bin's mean score and click rate. Out: one panel with the serving version and the
version that is compared with it. Grafana draws one series per pair of columns, and columns
have fixed names: so there is a column per role, not per version.
"""

from grafana_foundation_sdk.builders.dashboard import Panel

from srp4ctr.monitoring.dashboards.builders.panels import Curve, curves, lettered
from srp4ctr.monitoring.dashboards.builders.queries import CHOSEN, SOURCE, cells
from srp4ctr.monitoring.dashboards.builders.tables import joined
from srp4ctr.monitoring.dashboards.builders.versions import fixed, matching


def calibration_curve() -> Panel:
    """Return the panel."""

    def bins(metric: str, of: str) -> str:
        return (
            f"max by (bin) (srp4ctr_calibration_bin_{metric} and on (model_version) {of})"
        )

    serving = "(srp4ctr_serving_model == 1)"
    challenger = f"topk(1, srp4ctr_compared_impressions{{{CHOSEN}}})"
    names = (
        "Score",
        "Perfectly calibrated",
        "Serving",
        "Score of challenger",
        "Challenger",
    )
    targets = (
        cells(f"sort({bins('score', serving)})"),  # curves run from left to right
        cells(bins("score", serving)),
        cells(bins("click_rate", serving)),
        cells(bins("score", challenger)),
        cells(bins("click_rate", challenger)),
    )
    colours = {"Perfectly calibrated": "text", "Serving": "blue", "Challenger": "orange"}
    panel = (
        Panel()
        .title("Calibration curve")
        .description(
            "Above the diagonal the model under-predicts clicks, below it over-predicts."
        )
        .datasource(SOURCE)
        .targets(lettered(targets))
        .unit("percentunit")
        .transformations(joined({"bin": "Bin"}, names))
        .overrides([matching("byName", n, {"color": fixed(c)}) for n, c in colours.items()])
    )
    shown = (
        Curve(name="Perfectly calibrated", x="Score", y="Perfectly calibrated"),
        Curve(name="Serving", x="Score", y="Serving"),
        Curve(name="Challenger", x="Score of challenger", y="Challenger"),
    )
    return curves(panel, shown)
