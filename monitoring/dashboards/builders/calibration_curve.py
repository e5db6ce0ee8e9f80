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

_CALIBRATED = "Perfectly calibrated"
_COLOURS = {_CALIBRATED: "text", "Serving": "blue", "Challenger": "orange"}
_COLUMNS = ("Score", _CALIBRATED, "Serving", "Score of challenger", "Challenger")


def calibration_curve() -> Panel:
    """Return the panel."""
    serving = "(srp4ctr_serving_model == 1)"
    challenger = f"topk(1, srp4ctr_compared_impressions{{{CHOSEN}}})"
    targets = (
        cells(f"sort({_bins('score', serving)})"),  # curves run from left to right
        cells(_bins("score", serving)),
        cells(_bins("click_rate", serving)),
        cells(_bins("score", challenger)),
        cells(_bins("click_rate", challenger)),
    )
    why = "Above the diagonal the model under-predicts clicks, below it over-predicts."
    panel = (
        Panel()
        .title("Calibration curve")
        .description(why)
        .datasource(SOURCE)
        .targets(lettered(targets))
        .unit("percentunit")
        .transformations(joined({"bin": "Bin"}, _COLUMNS))
        .overrides(
            [matching("byName", n, {"color": fixed(c)}) for n, c in _COLOURS.items()]
        )
    )
    shown = (
        Curve(name=_CALIBRATED, x="Score", y=_CALIBRATED),
        Curve(name="Serving", x="Score", y="Serving"),
        Curve(name="Challenger", x="Score of challenger", y="Challenger"),
    )
    return curves(panel, shown)


def _bins(metric: str, of: str) -> str:
    return f"max by (bin) (srp4ctr_calibration_bin_{metric} and on (model_version) {of})"
