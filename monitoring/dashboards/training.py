"""Training: what was learnt from what, who serves, and whether the refresh keeps up.

In: bundles' cards, the last refresh's status, live quality beside held-out quality. Out:
the dashboard of who looks after the model.
"""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.builders.dashboard import Dashboard

from srp4ctr.monitoring.dashboards.builders import thresholds
from srp4ctr.monitoring.dashboards.builders.grid import line, new_board, section
from srp4ctr.monitoring.dashboards.builders.panels import (
    bars,
    light,
    limited,
    lines,
    stat_of,
    timeline,
)
from srp4ctr.monitoring.dashboards.builders.queries import (
    RANKED,
    VERSION,
    now,
    over_time,
    with_bounds,
)
from srp4ctr.monitoring.dashboards.builders.tables import Column, table_of
from srp4ctr.monitoring.dashboards.overview import serving_version

_DAY_S = 86_400.0
_MADE = "srp4ctr_bundle_created_seconds"
_START, _END = "srp4ctr_bundle_window_start_seconds", "srp4ctr_bundle_window_end_seconds"


def board() -> Dashboard:
    """Return the dashboard."""
    why = "What was learnt from what, which bundle serves, and whether refreshes keep up."
    made = new_board("training", "Training", why)
    _at_a_glance(made)
    _bundles(made)
    _refreshes(made)
    _promises(made)
    return made


def _at_a_glance(made: Dashboard) -> None:
    section(made, "At a glance")
    age = light(
        "Age of the serving model",
        "Since the newest event that it learnt from: what happened later it does not know.",
        "s",
        thresholds.at_most(_DAY_S, 7 * _DAY_S),
        over_time("max(srp4ctr_serving_model_age_seconds)"),
    )
    line(made, 4, (4, serving_version()), (4, age), *_last_refresh())


def _last_refresh() -> tuple[tuple[int, stat.Panel], ...]:
    ended = stat_of(
        "Since the last refresh",
        "How long ago a refresh last ended in order, its bundle promoted or not.",
        "s",
        over_time("min(srp4ctr_refresh_age_seconds)"),
    )
    failed = light(
        "Last refresh",
        "Whether it ended in order, or in an error that its report names.",
        "none",
        thresholds.none_of_it(),
        over_time("max(srp4ctr_refresh_failed)"),
    ).mappings(thresholds.words({0: ("in order", "green"), 1: ("failed", "red")}))
    took = stat_of(
        "Last refresh took",
        "How long the machine is shared with training.",
        "s",
        over_time("max(srp4ctr_refresh_duration_seconds)"),
    )
    refused = light(
        "Gates that refused",
        "0: the last bundle may serve; else the timeline below names what stopped it.",
        "none",
        thresholds.at_most(1, 2),
        over_time("count(srp4ctr_refresh_gate_passed == 0) or vector(0)"),
    )
    return tuple((4, each) for each in (ended, failed, took, refused))


def _bundles(made: Dashboard) -> None:
    section(made, "Bundles")
    bundles = table_of(
        "Newest bundles",
        "What each learnt from, and how it did on requests that were held out.",
        {"model_version": "Version"},
        (*_origins(), *_held_out()),
    )
    windows = bars(
        "Length of the data window",
        "How much past a bundle learnt from: a short window forgets what is seasonal.",
        "s",
        now(f"sort_desc({_of(_END)} - {_of(_START)})", VERSION),
    )
    line(made, 8, (18, bundles), (6, windows))


def _origins() -> list[Column]:
    times = {"Made": _MADE, "Data from": _START, "Data until": _END}
    serves = thresholds.words({1: ("serves", "green")})
    return [
        Column(name="Serves", expr=_of("srp4ctr_serving_model"), words=serves),
        *(
            Column(name=name, expr=f"{_of(metric)} * 1000", unit="dateTimeAsIso")
            for name, metric in times.items()
        ),
    ]


def _held_out() -> list[Column]:
    names = {"auc": "AUC", "gauc": "gAUC", "log_loss": "Log loss"}
    found = [
        Column(name=name, expr=_promised(metric), decimals=4)
        for metric, name in names.items()
    ]
    honest = _promised("calibration")
    right = thresholds.calibration()
    return [*found, Column(name="Calibration", expr=honest, decimals=3, limits=right)]


def _refreshes(made: Dashboard) -> None:
    section(made, "Refreshes")
    gates = timeline(
        "Gates",
        "What a new bundle had to pass before it might serve, and what refused it.",
        thresholds.words({1: ("passed", "green"), 0: ("refused", "red")}),
        over_time("min by (gate) (srp4ctr_refresh_gate_passed)", "{{gate}}"),
    )
    serves = timeline(
        "Who serves",
        "When a promotion or a rollback changed the version, to lay beside other panels.",
        thresholds.words({1: ("serves", "blue")}),
        over_time("max by (model_version) (srp4ctr_serving_model == 1)", VERSION),
    )
    late = lines(
        "Since the last refresh",
        "A saw-tooth while refreshes repeat: at three turns without one an alert fires.",
        "s",
        over_time("min(srp4ctr_refresh_age_seconds)", "since the last"),
        over_time("max(3 * srp4ctr_refresh_interval_seconds)", "three turns"),
    )
    duration = lines(
        "Duration of refreshes",
        "Whether training gets slower, as the log grows.",
        "s",
        over_time("max(srp4ctr_refresh_duration_seconds)", "duration"),
    )
    line(made, 8, (12, gates), (12, serves))
    line(made, 8, (12, late.min(0)), (12, duration.min(0)))


def _promises(made: Dashboard) -> None:
    section(made, "Promised and live")
    auc = lines(
        "AUC, live and held-out",
        "Whether what training promised is what users get; live below is skew or drift.",
        "none",
        *with_bounds("srp4ctr_live_auc", RANKED),
        over_time(_promised("auc"), f"{VERSION} held-out"),
    )
    loss = lines(
        "Log loss, live and held-out",
        "The same for the scores themselves, on which worse calibration tells as well.",
        "none",
        over_time(f"srp4ctr_live_log_loss_nats{{{RANKED}}}", VERSION),
        over_time(_promised("log_loss"), f"{VERSION} held-out"),
    )
    line(made, 8, (12, limited(auc, thresholds.auc())), (12, loss))


def _promised(metric: str) -> str:
    return f'max by (model_version) (srp4ctr_bundle_metric{{metric="{metric}"}})'


def _of(metric: str) -> str:
    return f"max by (model_version) ({metric})"
