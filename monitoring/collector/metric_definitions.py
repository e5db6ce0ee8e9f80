"""Every metric of the monitor: its name, help text and labels.

A name that ends in ``_total`` is a counter, one in ``HISTOGRAMS`` a histogram, any other a
gauge. No label has a user, an item or a request as its value; old versions are dropped.
"""

_V = ("model_version",)
_BOUNDS = ("model_version", "bound")
_PAIR = ("model_version", "baseline")
_BIN = ("model_version", "bin")
_STATUS = ("model_version", "status")
_S = ("server",)

METRICS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # Quality.
    ("srp4ctr_window_seconds", "Event time that live quality covers.", ()),
    ("srp4ctr_label_window_seconds", "Time that an impression waits for a click.", ()),
    ("srp4ctr_window_end_seconds", "Unix time of the newest settled impression.", ()),
    ("srp4ctr_matured_impressions", "Settled impressions in the window.", _V),
    ("srp4ctr_matured_top_impressions", "Settled impressions at position 1.", _V),
    ("srp4ctr_matured_clicks", "Clicks within their label window.", _V),
    ("srp4ctr_late_clicks", "Clicks after their label window.", _V),
    ("srp4ctr_online_click_rate", "Clicks / settled impressions.", _V),
    ("srp4ctr_online_click_rate_bound", "95 % bound of the click rate.", _BOUNDS),
    ("srp4ctr_online_click_rate_at_top", "Click rate at position 1.", _V),
    ("srp4ctr_online_click_rate_at_top_bound", "95 % bound at position 1.", _BOUNDS),
    ("srp4ctr_click_mean_reciprocal_rank", "Mean over clicks of 1 / position.", _V),
    ("srp4ctr_calibration_ratio", "Sum of scores / clicks; 1 is calibrated.", _V),
    ("srp4ctr_calibration_ratio_bound", "95 % bound of the calibration.", _BOUNDS),
    ("srp4ctr_calibration_bin_score", "Mean score of a tenth of impressions.", _BIN),
    ("srp4ctr_calibration_bin_click_rate", "Click rate of that tenth.", _BIN),
    ("srp4ctr_expected_calibration_error", "Mean |score - click rate| of tenths.", _V),
    ("srp4ctr_live_log_loss_nats", "Mean log loss of the scores shown.", _V),
    ("srp4ctr_live_normalized_entropy", "Log loss / the click rate's entropy.", _V),
    (
        "srp4ctr_live_auc",
        "P(a clicked item scores above another at the same position).",
        _V,
    ),
    ("srp4ctr_live_auc_bound", "95 % bound of the live AUC.", _BOUNDS),
    ("srp4ctr_live_auc_expected", "Live AUC if clicks followed the scores.", _V),
    (
        "srp4ctr_live_auc_position_corrected",
        "0: every position is 0, so the live AUC has position bias, else 1.",
        _V,
    ),
    (
        "srp4ctr_live_request_auc",
        "P(a clicked item scores above another of its request), from exploration.",
        _V,
    ),
    ("srp4ctr_live_request_auc_bound", "95 % bound of that AUC.", _BOUNDS),
    ("srp4ctr_label_coverage", "Labelled / due impressions.", _V),
    ("srp4ctr_provisional_impressions", "Impressions with an open label window.", _V),
    ("srp4ctr_provisional_click_rate", "Click rate so far of those; it rises.", _V),
    ("srp4ctr_click_rate_difference", "At position 1, minus the baseline's.", _PAIR),
    (
        "srp4ctr_click_rate_difference_bound",
        "95 % bound of the difference; valid at any time.",
        (*_PAIR, "bound"),
    ),
    ("srp4ctr_compared_impressions", "At position 1, while both served.", _PAIR),
    ("srp4ctr_verdict", "1 better than the baseline, -1 worse, 0 undecided.", _PAIR),
    (
        "srp4ctr_quality_regression",
        "1: earns fewer clicks than the baseline, an older version or a control group.",
        _PAIR,
    ),
    (
        "srp4ctr_canary_share",
        "The share of users that the server assigns to the canary.",
        _PAIR,
    ),
    (
        "srp4ctr_experiment_users",
        "Users in the canary's experiment by arm; at most 16,384 are counted.",
        (*_PAIR, "arm"),
    ),
    (
        "srp4ctr_sample_ratio_evidence",
        "ln of the odds that users are not split as assigned; 6.9 is 1,000 to 1.",
        _PAIR,
    ),
    (
        "srp4ctr_figures_behind_seconds",
        "Time since live figures had every label of the topic.",
        (),
    ),
    ("srp4ctr_undecodable_labels_total", "Messages that could not be decoded.", ()),
    # Cost.
    ("srp4ctr_serving_model", "1 for the version that answers requests.", _V),
    ("srp4ctr_serving_model_age_seconds", "Time since its newest training data.", ()),
    (
        "srp4ctr_served_requests_total",
        "Calls of an ensemble; Triton 2.51 counts one that fails in a step twice.",
        ("ensemble", "outcome"),
    ),
    ("srp4ctr_scored_requests_total", "Users whose candidates were scored.", _V),
    ("srp4ctr_scored_candidates_total", "Candidates scored, without padding.", _V),
    ("srp4ctr_encoder_runs_total", "Histories encoded.", _V),
    ("srp4ctr_encoder_runs_per_request", "Encodings per user of a request.", ()),
    ("srp4ctr_serving_cpu_seconds_total", "CPU time of the serving step.", _V),
    ("srp4ctr_step_runs_total", "Users that a step has processed.", ("step",)),
    ("srp4ctr_step_seconds_total", "Time spent in a step.", ("step", "phase")),
    ("srp4ctr_inference_flops_total", "FLOPs computed, by the cost card.", _V),
    ("srp4ctr_reencode_flops_total", "FLOPs if re-encoded per candidate.", _V),
    ("srp4ctr_price_per_core_hour", "Price from the settings.", ("currency",)),
    ("srp4ctr_price_per_gpu_hour", "Price from the settings.", ("currency",)),
    ("srp4ctr_request_duration_seconds", "Time of a call in the ranking step.", _V),
    ("srp4ctr_refused_requests_total", "Invalid requests.", (*_V, "reason")),
    (
        "srp4ctr_next_items_total",
        "Users' next new items by their place among the candidates.",
        (*_V, "place"),
    ),
    (
        "srp4ctr_native_calls_total",
        "Calls of the native step; all that it has not answered the Python step answers.",
        (*_V, "outcome"),
    ),
    ("srp4ctr_native_failed_loads_total", "Times the native step could not load.", _V),
    ("srp4ctr_native_comparisons_total", "Calls that both steps answered.", _V),
    (
        "srp4ctr_native_mismatches_total",
        "Outputs of those in which the answers differ.",
        (*_V, "output"),
    ),
    # Each server.
    ("srp4ctr_server_up", "1 while the server's metrics page answers.", _S),
    ("srp4ctr_server_ready", "1 while it is up and has loaded rank_clicks.", _S),
    (
        "srp4ctr_server_requests_total",
        "Calls of its ensembles; Triton 2.51 counts one that fails in a step twice.",
        (*_S, "outcome"),
    ),
    ("srp4ctr_server_refused_requests_total", "Its invalid requests.", _S),
    ("srp4ctr_server_scored_requests_total", "Its users with scored candidates.", _S),
    ("srp4ctr_server_candidates_total", "Candidates that it scored.", _S),
    ("srp4ctr_server_queue_seconds_total", "Its requests' waits for a process.", _S),
    ("srp4ctr_server_cpu_seconds_total", "CPU time of its serving step.", _S),
    ("srp4ctr_server_request_duration_seconds", "Time of a call in its step.", _S),
    (
        "srp4ctr_server_requests_by_status_total",
        "Its requests by the user's status.",
        (*_S, "status"),
    ),
    ("srp4ctr_server_score_psi", "PSI of its scores.", (*_S, *_V)),
    ("srp4ctr_server_feature_psi", "PSI of its feature.", (*_S, *_V, "feature")),
    # Inputs.
    ("srp4ctr_requests_by_status_total", "Requests by the user's status.", _STATUS),
    ("srp4ctr_candidates_by_status_total", "Candidates by the item's status.", _STATUS),
    ("srp4ctr_feature_age_seconds", "Age of the sequence at a request.", _V),
    (
        "srp4ctr_item_cache_age_seconds",
        "Time since items were up to date, at the last requests.",
        _V,
    ),
    ("srp4ctr_score_psi", "PSI of scores; above 0.2 they drifted.", _V),
    ("srp4ctr_feature_psi", "PSI of a feature.", (*_V, "feature")),
    ("srp4ctr_unseen_item_share", "Share of shown items not in training.", (*_V, "where")),
    ("srp4ctr_cold_user_share", "Share of users without a history.", (*_V, "where")),
    # Health.
    ("srp4ctr_consumer_lag_records", "Unread records of a consumer group.", ("group",)),
    ("srp4ctr_feature_check_rows", "Rows of the store compared with the log.", ()),
    ("srp4ctr_feature_check_wrong_rows", "Rows that differ from the log.", ()),
    ("srp4ctr_feature_check_edits", "Edits between stored and log sequences.", ()),
    ("srp4ctr_feature_check_largest_difference", "Of a counter, in events.", ()),
    ("srp4ctr_feature_check_behind_seconds", "How far the store was behind.", ()),
    ("srp4ctr_feature_check_age_seconds", "Time since the last check.", ()),
    ("srp4ctr_training_serving_skew", "Mean |served score - log's score|.", _V),
    ("srp4ctr_skew_check_age_seconds", "Time since the last skew check.", ()),
    ("srp4ctr_serving_crashes_total", "Crashes of serving processes.", _V),
    ("srp4ctr_refresh_age_seconds", "Time since a refresh last succeeded.", ()),
    ("srp4ctr_refresh_interval_seconds", "Interval of repeated refreshes.", ()),
    ("srp4ctr_refresh_duration_seconds", "Duration of the last refresh.", ()),
    ("srp4ctr_refresh_failed", "1 if the last refresh failed.", ()),
    ("srp4ctr_refresh_gate_passed", "1 if the gate passed, otherwise 0.", ("gate",)),
    ("srp4ctr_bundle_metric", "Held-out metrics of a bundle.", (*_V, "metric")),
    ("srp4ctr_bundle_created_seconds", "Unix time of its creation.", _V),
    ("srp4ctr_bundle_window_start_seconds", "Unix time of its oldest data.", _V),
    ("srp4ctr_bundle_window_end_seconds", "Unix time of its newest data.", _V),
    ("srp4ctr_bundle_sampled_negatives", "1: its scores are preferences.", _V),
    ("srp4ctr_source_up", "1 while the source answers the monitor.", ("source",)),
)

# Upper bounds of the buckets, the same as in the ranking step.
_DURATIONS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03),
    *(0.05, 0.1, 0.25, 0.5, 1),
)
HISTOGRAMS: dict[str, tuple[float, ...]] = {
    "srp4ctr_request_duration_seconds": _DURATIONS,
    "srp4ctr_server_request_duration_seconds": _DURATIONS,
    "srp4ctr_feature_age_seconds": (
        *(1, 5, 30, 120, 600, 3600, 21_600, 86_400, 604_800, 2_592_000),
    ),
}
