"""Training: bundles and their data, the serving version, and the refreshes.

In: bundles' cards, the last refresh's status, live and held-out quality. Out: the dashboard
for the owners of the model.
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
_CREATED = "srp4ctr_bundle_created_seconds"
_START, _END = "srp4ctr_bundle_window_start_seconds", "srp4ctr_bundle_window_end_seconds"


def board() -> Dashboard:
    """Return the dashboard."""
    why = "Which data each bundle was trained on, which one serves, and the refreshes."
    made = new_board("training", "Training", why)
    _at_a_glance(made)
    _bundles(made)
    _refreshes(made)
    _live_and_held_out(made)
    return made


def _at_a_glance(made: Dashboard) -> None:
    section(made, "At a glance")
    age = light(
        "Age of the serving model",
        "Time since the newest event that the serving model was trained on.",
        "s",
        thresholds.at_most(_DAY_S, 7 * _DAY_S),
        over_time("max(srp4ctr_serving_model_age_seconds)"),
    )
    line(made, 4, (4, serving_version()), (4, age), *_last_refresh())


def _last_refresh() -> tuple[tuple[int, stat.Panel], ...]:
    ended = stat_of(
        "Since the last refresh",
        "Time since a refresh last succeeded, whether its bundle was promoted or not.",
        "s",
        over_time("min(srp4ctr_refresh_age_seconds)"),
    )
    failed = light(
        "Last refresh",
        "Whether it succeeded, or failed with an error that its report names.",
        "none",
        thresholds.none_of_it(),
        over_time("max(srp4ctr_refresh_failed)"),
    ).mappings(thresholds.words({0: ("succeeded", "green"), 1: ("failed", "red")}))
    took = stat_of(
        "Last refresh duration",
        "How long the last refresh used the machine.",
        "s",
        over_time("max(srp4ctr_refresh_duration_seconds)"),
    )
    refused = light(
        "Failed gates",
        "At 0 the last bundle may serve; the timeline below names the failed gates.",
        "none",
        thresholds.at_most(1, 2),
        over_time("count(srp4ctr_refresh_gate_passed == 0) or vector(0)"),
    )
    return tuple((4, each) for each in (ended, failed, took, refused))


def _bundles(made: Dashboard) -> None:
    section(made, "Bundles")
    bundles = table_of(
        "Newest bundles",
        "Which data each was trained on, and its metrics on held-out requests.",
        {"model_version": "Version"},
        (*_origins(), *_held_out()),
    )
    windows = bars(
        "Length of the data window",
        "Length of the training data: a short window misses seasonal patterns.",
        "s",
        now(f"sort_desc({_of(_END)} - {_of(_START)})", VERSION),
    )
    line(made, 8, (18, bundles), (6, windows))


def _origins() -> list[Column]:
    times = {"Created": _CREATED, "Data from": _START, "Data until": _END}
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
        Column(name=name, expr=_held_out_metric(metric), decimals=4)
        for metric, name in names.items()
    ]
    calibration = _held_out_metric("calibration")
    limits = thresholds.calibration()
    return [
        *found,
        Column(name="Calibration", expr=calibration, decimals=3, limits=limits),
    ]


def _refreshes(made: Dashboard) -> None:
    section(made, "Refreshes")
    gates = timeline(
        "Gates",
        "The checks that a new bundle must pass before it may serve.",
        thresholds.words({1: ("passed", "green"), 0: ("failed", "red")}),
        over_time("min by (gate) (srp4ctr_refresh_gate_passed)", "{{gate}}"),
    )
    serves = timeline(
        "Serving version over time",
        "When a promotion or a rollback changed the version, to compare with other panels.",
        thresholds.words({1: ("serves", "blue")}),
        over_time("max by (model_version) (srp4ctr_serving_model == 1)", VERSION),
    )
    age = lines(
        "Time between refreshes",
        "Rises until a refresh succeeds: above three intervals an alert fires.",
        "s",
        over_time("min(srp4ctr_refresh_age_seconds)", "since the last"),
        over_time("max(3 * srp4ctr_refresh_interval_seconds)", "three intervals"),
    )
    duration = lines(
        "Duration of refreshes",
        "Whether training gets slower as the log grows.",
        "s",
        over_time("max(srp4ctr_refresh_duration_seconds)", "duration"),
    )
    line(made, 8, (12, gates), (12, serves))
    line(made, 8, (12, age.min(0)), (12, duration.min(0)))


def _live_and_held_out(made: Dashboard) -> None:
    section(made, "Held-out and live")
    auc = lines(
        "AUC, live and held-out",
        "A live AUC below the held-out one points to skew or drift.",
        "none",
        *with_bounds("srp4ctr_live_auc", RANKED),
        over_time(_held_out_metric("auc"), f"{VERSION} held-out"),
    )
    loss = lines(
        "Log loss, live and held-out",
        "The same for log loss, which worse calibration raises as well.",
        "none",
        over_time(f"srp4ctr_live_log_loss_nats{{{RANKED}}}", VERSION),
        over_time(_held_out_metric("log_loss"), f"{VERSION} held-out"),
    )
    line(made, 8, (12, limited(auc, thresholds.auc())), (12, loss))


def _held_out_metric(metric: str) -> str:
    return f'max by (model_version) (srp4ctr_bundle_metric{{metric="{metric}"}})'


def _of(metric: str) -> str:
    return f"max by (model_version) ({metric})"
