"""Training: bundles and their data, the serving version, and the refreshes.

In: bundles' cards, the last refresh's status, live and held-out quality. Out: the dashboard
for the owners of the model.
"""

from srp4ctr.monitoring.dashboards import thresholds
from srp4ctr.monitoring.dashboards.layout import board, line, section
from srp4ctr.monitoring.dashboards.overview import SERVING_VERSION
from srp4ctr.monitoring.dashboards.panels import bars, column, lines, stat, table, timeline
from srp4ctr.monitoring.dashboards.queries import (
    RANKED,
    VERSION,
    by_version,
    now,
    over_time,
    with_bounds,
)

_DAY_S = 86_400.0
_HELD_OUT = 'max by (model_version) (srp4ctr_bundle_metric{{metric="{}"}})'
_OF = "max by (model_version) ({})"
_CREATED, _START, _END = (
    _OF.format(f"srp4ctr_bundle_{name}_seconds")
    for name in ("created", "window_start", "window_end")
)

_AT_A_GLANCE = line(
    4,
    SERVING_VERSION,
    stat(
        "Age of the serving model",
        "Time since the newest event that the serving model was trained on.",
        "s",
        over_time("max(srp4ctr_serving_model_age_seconds)"),
        limits=thresholds.at_most(_DAY_S, 7 * _DAY_S),
    ),
    stat(
        "Since the last refresh",
        "Time since a refresh last succeeded, whether its bundle was promoted or not.",
        "s",
        over_time("min(srp4ctr_refresh_age_seconds)"),
    ),
    stat(
        "Last refresh",
        "Outcome of the last refresh; its report names the error.",
        "none",
        over_time("max(srp4ctr_refresh_failed)"),
        limits=thresholds.NONE_OF_IT,
        mappings=thresholds.words({0: ("succeeded", "green"), 1: ("failed", "red")}),
    ),
    stat(
        "Last refresh duration",
        "How long the last refresh used the machine.",
        "s",
        over_time("max(srp4ctr_refresh_duration_seconds)"),
    ),
    stat(
        "Failed gates",
        "At 0 the last bundle may serve; the timeline below names the failed gates.",
        "none",
        over_time("count(srp4ctr_refresh_gate_passed == 0) or vector(0)"),
        limits=thresholds.at_most(1, 2),
    ),
)
_BUNDLES = line(
    8,
    table(
        "Newest bundles",
        "Training data and held-out metrics of each bundle; below 0 a one-line rule ranks "
        "better, and the bundle's report says how to serve it.",
        {"model_version": "Version"},
        column(
            "Serves",
            _OF.format("srp4ctr_serving_model"),
            mappings=thresholds.words({1: ("serves", "green")}),
        ),
        column(
            "Scores",
            _OF.format("srp4ctr_bundle_sampled_negatives"),
            mappings=thresholds.SCORES,
        ),
        column("Created", f"{_CREATED} * 1000", "dateTimeAsIso"),
        column("Data from", f"{_START} * 1000", "dateTimeAsIso"),
        column("Data until", f"{_END} * 1000", "dateTimeAsIso"),
        column("AUC", _HELD_OUT.format("auc"), decimals=4),
        column("gAUC", _HELD_OUT.format("gauc"), decimals=4),
        column("Less best rule", _HELD_OUT.format("less_best_rule"), decimals=4),
        column("Log loss", _HELD_OUT.format("log_loss"), decimals=4),
        column(
            "Calibration",
            _HELD_OUT.format("calibration"),
            decimals=3,
            thresholds=thresholds.CALIBRATION,
        ),
    ),
    bars(
        "Length of the data window",
        "Length of the training data: a short window misses seasonal patterns.",
        "s",
        now(f"sort_desc({_END} - {_START})", VERSION),
    ),
    widths=(18, 6),
)
_GATES = line(
    8,
    timeline(
        "Gates",
        "The checks that a new bundle must pass before it may serve.",
        thresholds.words({1: ("passed", "green"), 0: ("failed", "red")}),
        over_time("min by (gate) (srp4ctr_refresh_gate_passed)", "{{gate}}"),
    ),
    timeline(
        "Serving version over time",
        "When a promotion or a rollback changed the version, to compare with other panels.",
        thresholds.words({1: ("serves", "blue")}),
        over_time("max by (model_version) (srp4ctr_serving_model == 1)", VERSION),
    ),
)
_REFRESHES = line(
    8,
    lines(
        "Time between refreshes",
        "Rises until a refresh succeeds: above three intervals an alert fires.",
        "s",
        over_time("min(srp4ctr_refresh_age_seconds)", "since the last"),
        over_time("max(3 * srp4ctr_refresh_interval_seconds)", "three intervals"),
        min=0,
    ),
    lines(
        "Duration of refreshes",
        "Whether training gets slower as the log grows.",
        "s",
        over_time("max(srp4ctr_refresh_duration_seconds)", "duration"),
        min=0,
    ),
)
_LIVE_AND_HELD_OUT = line(
    8,
    lines(
        "AUC, live and held-out",
        "A falling live AUC points to skew or drift; it compares items at one position, so "
        "it is below the held-out AUC.",
        "none",
        *with_bounds("srp4ctr_live_auc", RANKED),
        over_time(_HELD_OUT.format("auc"), f"{VERSION} held-out"),
        limits=thresholds.AUC,
    ),
    lines(
        "Log loss, live and held-out",
        "The same for log loss, which worse calibration raises as well.",
        "none",
        by_version("srp4ctr_live_log_loss_nats", RANKED),
        over_time(_HELD_OUT.format("log_loss"), f"{VERSION} held-out"),
    ),
)
BOARD = board(
    "training",
    "Training",
    "The training data of each bundle, the serving bundle, and the refreshes.",
    section("At a glance", _AT_A_GLANCE),
    section("Bundles", _BUNDLES),
    section("Refreshes", _GATES, _REFRESHES),
    section("Held-out and live", _LIVE_AND_HELD_OUT),
    has_versions=False,
)
