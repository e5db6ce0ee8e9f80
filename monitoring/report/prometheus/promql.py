"""The PromQL of a report, by the names of its figures.

It reads raw metrics only: recording rules look back five minutes, and a report over days
needs whole sums.
"""

# Without impressions that no model ranked, and without the monitor's overflow label.
_MODELS = 'model_version!~"|unranked|other"'
MIN_COUNT = 30  # a ratio of fewer is not drawn: it is noise
WINDOW = "max(srp4ctr_window_seconds)"
LABEL_WINDOW = "max(srp4ctr_label_window_seconds)"
WINDOW_END = "max(srp4ctr_window_end_seconds)"
SERVING = "srp4ctr_serving_model == 1"

# Figures of one window, which ``aggregation`` adds up.
_ADDED = (
    "matured_impressions",
    "matured_clicks",
    "matured_top_impressions",
    "online_click_rate_at_top",
    "online_click_rate_at_top_bound",
    "live_log_loss_nats",
    "live_auc",
    "live_auc_bound",
    "label_coverage",
    "calibration_ratio",
    "calibration_ratio_bound",
    "calibration_bin_score",
    "calibration_bin_click_rate",
)
QUALITY = (
    "max by (__name__, model_version, bound, bin) "
    f'({{__name__=~"srp4ctr_({"|".join(_ADDED)})",{_MODELS}}})'
)
COMPARISONS = (
    "max by (__name__, model_version, baseline, bound) "
    f'({{__name__=~"srp4ctr_(click_rate_difference|click_rate_difference_bound'
    f'|compared_impressions)",{_MODELS}}})'
)


def price(length_s: float) -> str:
    """Return the query of the newest price per core-hour, by currency."""
    newest = f"last_over_time(srp4ctr_price_per_core_hour[{length_s:.0f}s])"
    return f"max by (currency) ({newest})"


def firing(within_s: float) -> str:
    """Return the query of alerts that fired within the last ``within_s`` seconds.

    Without the watchdog, which always fires.
    """
    return (
        f'max_over_time(ALERTS{{alertstate="firing", severity!="none"}}[{within_s:.0f}s])'
    )


def cost(length_s: float) -> dict[str, str]:
    """Return the queries of the period's sums, by the fields of ``Cost``."""
    counters = {
        "requests": "srp4ctr_scored_requests_total",
        "candidates": "srp4ctr_scored_candidates_total",
        "encoder_runs": "srp4ctr_encoder_runs_total",
        "cpu_s": "srp4ctr_serving_cpu_seconds_total",
        "flops": "srp4ctr_inference_flops_total",
        "reencoded_flops": "srp4ctr_reencode_flops_total",
    }
    return {
        **{name: _moved("increase", each, length_s) for name, each in counters.items()},
        "p50_s": _quantile(0.5, length_s),
        "p99_s": _quantile(0.99, length_s),
    }


def inputs(length_s: float) -> dict[str, str]:
    """Return the queries of the newest figures, by the fields of ``Inputs``."""

    def newest(gauge: str, where: str = "") -> str:
        found = f"last_over_time({gauge}{{{_MODELS}{where}}}[{length_s:.0f}s])"
        return f"max by (model_version) ({found})"

    found = {"score_psi": newest("srp4ctr_score_psi")}
    for name, gauge in {
        "unseen_items": "srp4ctr_unseen_item_share",
        "cold_users": "srp4ctr_cold_user_share",
    }.items():
        found[name] = newest(gauge, ',where="live"')
        found[f"{name}_in_training"] = newest(gauge, ',where="training"')
    return found


def lines(within_s: float) -> dict[str, dict[str, str]]:
    """Return the queries of each line over time, by the fields of ``ChartLine``."""
    cpu = _moved("rate", "srp4ctr_serving_cpu_seconds_total", within_s)
    candidates = _moved("rate", "srp4ctr_scored_candidates_total", within_s)
    pair = "model_version, baseline"
    return {
        "difference": _with_bounds("srp4ctr_click_rate_difference", pair),
        "top_click_rate": {
            part: _known(query, "srp4ctr_matured_top_impressions")
            for part, query in _with_bounds("srp4ctr_online_click_rate_at_top").items()
        },
        "calibration": {
            "points": _known(_gauge("srp4ctr_calibration_ratio"), "srp4ctr_matured_clicks")
        },
        "cpu_s_per_million": {"points": f"1e6 * {cpu} / ({candidates} > 0)"},
        "p99_s": {"points": _quantile(0.99, within_s)},
        "requests": {"points": _moved("rate", "srp4ctr_scored_requests_total", within_s)},
    }


def _with_bounds(metric: str, by: str = "model_version") -> dict[str, str]:
    return {
        "points": _gauge(metric, by),
        "low": _gauge(f"{metric}_bound", by, ',bound="low"'),
        "high": _gauge(f"{metric}_bound", by, ',bound="high"'),
    }


def _gauge(metric: str, by: str = "model_version", where: str = "") -> str:
    return f"max by ({by}) ({metric}{{{_MODELS}{where}}})"


def _known(query: str, count: str) -> str:
    """Return ``query`` where the version has at least ``MIN_COUNT`` of ``count``."""
    return f"{query} and on (model_version) ({_gauge(count)} >= {MIN_COUNT})"


def _moved(function: str, counter: str, within_s: float) -> str:
    return f"sum by (model_version) ({function}({counter}{{{_MODELS}}}[{within_s:.0f}s]))"


def _quantile(share: float, within_s: float) -> str:
    buckets = f"srp4ctr_request_duration_seconds_bucket{{{_MODELS}}}[{within_s:.0f}s]"
    return f"histogram_quantile({share}, sum by (model_version, le) (rate({buckets})))"
