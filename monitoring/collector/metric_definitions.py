"""Every metric that the monitor shows: its name, a sentence of help, and its labels.

A name that ends in ``_total`` is a counter, one in ``HISTOGRAMS`` a histogram, any other a
gauge. No label is a user's, an item's or a request's; versions retire.
"""

_V = ("model_version",)
_BOUNDS = ("model_version", "bound")
_PAIR = ("model_version", "baseline")
Declared = tuple[str, str, tuple[str, ...]]

QUALITY: tuple[Declared, ...] = (
    ("srp4ctr_window_seconds", "Event time that live quality covers.", ()),
    ("srp4ctr_label_window_seconds", "So long an impression waits for its click.", ()),
    ("srp4ctr_window_end_seconds", "Unix time of the newest settled impression.", ()),
    ("srp4ctr_matured_impressions", "Settled impressions in the window.", _V),
    ("srp4ctr_matured_top_impressions", "Of those, at position 1.", _V),
    ("srp4ctr_matured_clicks", "Clicks within their label window.", _V),
    ("srp4ctr_late_clicks", "Clicks after their label window.", _V),
    ("srp4ctr_online_click_rate", "Clicks / settled impressions.", _V),
    ("srp4ctr_online_click_rate_bound", "95 % bound of the click rate.", _BOUNDS),
    ("srp4ctr_online_click_rate_at_top", "Click rate at position 1.", _V),
    ("srp4ctr_online_click_rate_at_top_bound", "95 % bound at position 1.", _BOUNDS),
    ("srp4ctr_click_mean_reciprocal_rank", "Mean over clicks of 1 / position.", _V),
    ("srp4ctr_calibration_ratio", "Sum of scores / clicks; 1 is honest.", _V),
    ("srp4ctr_calibration_ratio_bound", "95 % bound of the calibration.", _BOUNDS),
    ("srp4ctr_calibration_bin_score", "Mean score of a tenth.", (*_V, "bin")),
    ("srp4ctr_calibration_bin_click_rate", "Its click rate.", (*_V, "bin")),
    ("srp4ctr_expected_calibration_error", "Mean |score - click rate| of tenths.", _V),
    ("srp4ctr_live_log_loss_nats", "Mean log loss of the scores shown.", _V),
    ("srp4ctr_live_normalized_entropy", "Log loss / the click rate's entropy.", _V),
    ("srp4ctr_live_auc", "P(clicked scored above passed over).", _V),
    ("srp4ctr_live_auc_bound", "95 % bound of the live AUC.", _BOUNDS),
    ("srp4ctr_label_coverage", "Settled / all that should be.", _V),
    ("srp4ctr_provisional_impressions", "Their label window is still open.", _V),
    ("srp4ctr_provisional_click_rate", "Of those, clicked so far; it rises.", _V),
    ("srp4ctr_click_rate_difference", "At position 1, less the baseline's.", _PAIR),
    (
        "srp4ctr_click_rate_difference_bound",
        "95 % confidence sequence: valid however often one looks.",
        (*_PAIR, "bound"),
    ),
    ("srp4ctr_compared_impressions", "At position 1, while both served.", _PAIR),
    ("srp4ctr_verdict", "1 better than the baseline, -1 worse, 0 not known.", _PAIR),
    ("srp4ctr_undecodable_labels_total", "Messages that are not labels.", ()),
)
COST: tuple[Declared, ...] = (
    ("srp4ctr_serving_model", "1 for the version that answers requests.", _V),
    ("srp4ctr_serving_model_age_seconds", "Since the newest data it has seen.", ()),
    (
        "srp4ctr_served_requests_total",
        "Calls of an ensemble; Triton 2.51 counts one that fails in a step twice.",
        ("ensemble", "outcome"),
    ),
    ("srp4ctr_scored_requests_total", "Users whose candidates were scored.", _V),
    ("srp4ctr_scored_candidates_total", "Candidates scored, without padding.", _V),
    ("srp4ctr_encoder_runs_total", "Histories encoded.", _V),
    ("srp4ctr_encoder_runs_per_request", "Encodings per user asked for.", ()),
    ("srp4ctr_serving_cpu_seconds_total", "CPU time of the serving step.", _V),
    ("srp4ctr_step_runs_total", "Users that a step has worked on.", ("step",)),
    ("srp4ctr_step_seconds_total", "Time spent in a step.", ("step", "phase")),
    ("srp4ctr_inference_flops_total", "FLOPs spent, by the cost card.", _V),
    ("srp4ctr_reencode_flops_total", "FLOPs the same traffic costs unfolded.", _V),
    ("srp4ctr_price_per_core_hour", "Of a CPU core, from settings.", ("currency",)),
    ("srp4ctr_price_per_gpu_hour", "Of a GPU, from settings.", ("currency",)),
    ("srp4ctr_request_duration_seconds", "Time of a call in the step that ranks.", _V),
    ("srp4ctr_refused_requests_total", "Refused for what they sent.", (*_V, "reason")),
)
INPUTS: tuple[Declared, ...] = (
    ("srp4ctr_requests_by_status_total", "By their user's status.", (*_V, "status")),
    ("srp4ctr_candidates_by_status_total", "By the item's status.", (*_V, "status")),
    ("srp4ctr_feature_age_seconds", "Of the user's sequence at a request.", _V),
    ("srp4ctr_item_cache_age_seconds", "Of the items' table at the last requests.", _V),
    ("srp4ctr_score_psi", "Scores against training's; above 0.2 they moved.", _V),
    ("srp4ctr_feature_psi", "The same of a feature.", (*_V, "feature")),
    ("srp4ctr_unseen_item_share", "Of what is shown.", (*_V, "where")),
    ("srp4ctr_cold_user_share", "Requests without a history.", (*_V, "where")),
)
HEALTH: tuple[Declared, ...] = (
    ("srp4ctr_consumer_lag_records", "Events not yet folded.", ("group",)),
    ("srp4ctr_feature_check_rows", "Rows of the store compared with the log.", ()),
    ("srp4ctr_feature_check_wrong_rows", "Rows that are not what the log says.", ()),
    ("srp4ctr_feature_check_edits", "Edits that would right the sequences.", ()),
    ("srp4ctr_feature_check_largest_difference", "Of a counter, in events.", ()),
    ("srp4ctr_feature_check_behind_seconds", "Age of what the store lacks.", ()),
    ("srp4ctr_feature_check_age_seconds", "Since the store was last checked.", ()),
    ("srp4ctr_training_serving_skew", "Mean |score served - by the log's features|.", _V),
    ("srp4ctr_skew_check_age_seconds", "Since requests served were checked.", ()),
    ("srp4ctr_serving_crashes_total", "Of serving processes, while they served.", _V),
    ("srp4ctr_refresh_age_seconds", "Since a refresh last ended in order.", ()),
    ("srp4ctr_refresh_interval_seconds", "Between refreshes that repeat.", ()),
    ("srp4ctr_refresh_duration_seconds", "Of the last refresh.", ()),
    ("srp4ctr_refresh_failed", "1 if the last refresh ended in an error.", ()),
    ("srp4ctr_refresh_gate_passed", "1, or 0 for what refused it.", ("gate",)),
    ("srp4ctr_bundle_metric", "Held-out figures of a bundle.", (*_V, "metric")),
    ("srp4ctr_bundle_created_seconds", "Unix time.", _V),
    ("srp4ctr_bundle_window_start_seconds", "Unix time of its oldest data.", _V),
    ("srp4ctr_bundle_window_end_seconds", "Unix time of its newest data.", _V),
    ("srp4ctr_source_up", "1 while the monitor hears from the source.", ("source",)),
)
METRICS: tuple[Declared, ...] = (*QUALITY, *COST, *INPUTS, *HEALTH)

# Upper bounds of the buckets: those of the step, which counts into them.
HISTOGRAMS: dict[str, tuple[float, ...]] = {
    "srp4ctr_request_duration_seconds": (
        *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03),
        *(0.05, 0.1, 0.25, 0.5, 1),
    ),
    "srp4ctr_feature_age_seconds": (
        *(1, 5, 30, 120, 600, 3600, 21_600, 86_400, 604_800, 2_592_000),
    ),
}
