"""A small real exporter: the monitor's metrics of two versions, moving as under traffic.

v1 serves; v2 is compared with it, ranks better and costs more. Counters grow from the
moment it starts, so that rates are there after a few scrapes.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from srp4ctr import metrics

VERSIONS = ("v1", "v2")
BY_VERSION = {  # of v1; v2's are a little better, or more expensive
    "matured_impressions": 17_500,
    "matured_clicks": 7_900,
    "late_clicks": 130,
    "matured_top_impressions": 2_185,
    "online_click_rate": 0.45,
    "online_click_rate_at_top": 0.61,
    "click_mean_reciprocal_rank": 0.42,
    "calibration_ratio": 1.02,
    "live_log_loss_nats": 0.58,
    "live_normalized_entropy": 0.86,
    "live_auc": 0.763,
    "expected_calibration_error": 0.012,
    "label_coverage": 0.97,
    "provisional_impressions": 420,
    "provisional_click_rate": 0.31,
    "item_cache_age_seconds": 0.8,
    "score_psi": 0.04,
    "training_serving_skew": 0.001,
    "bundle_created_seconds": 1.79e9,
    "bundle_window_start_seconds": 1.77e9,
    "bundle_window_end_seconds": 1.79e9,
    "bundle_sampled_negatives": 0.0,
}
BOUNDED = ("online_click_rate", "online_click_rate_at_top", "calibration_ratio", "live_auc")
PLAIN = {
    "window_seconds": 3600,
    "serving_model_age_seconds": 640,
    "stream_lag_records": 12,
    "probe_age_seconds": 8,
    "feature_check_rows": 800,
    "feature_check_wrong_rows": 0,
    "feature_check_edits": 0,
    "feature_check_largest_difference": 0.0002,
    "feature_check_behind_seconds": 1.2,
    "feature_check_age_seconds": 95,
    "refresh_age_seconds": 640,
    "refresh_interval_seconds": 3600,
    "refresh_duration_seconds": 84,
    "refresh_failed": 0,
    "encoder_runs_per_request": 0.87,
    "label_impressions_waiting": 420,
    "label_unmatched_clicks": 3,
    "label_evicted_early": 0,
}
COUNTED = {  # a second, of v1
    "scored_requests_total": 40.0,
    "scored_candidates_total": 4_000.0,
    "encoder_runs_total": 35.0,
    "serving_cpu_seconds_total": 0.4,
    "inference_flops_total": 3e9,
    "reencode_flops_total": 6e10,
}
LABELLED: dict[str, list[tuple[str, ...]]] = {  # their labels' values
    "step_seconds_total": [
        (s, p) for s in ("rank_clicks", "click_ranker") for p in ("request", "queue")
    ],
    "step_runs_total": [("rank_clicks",), ("click_ranker",)],
    "served_requests_total": [("rank_clicks", "success"), ("rank_clicks", "failure")],
    "requests_by_status_total": [("v1", "ok"), ("v1", "cold_user"), ("v2", "ok")],
    "events_total": [("impression",), ("click",), ("behavior",)],
    "events_rejected_total": [("not_json",)],
    "labels_total": [("true",), ("false",)],
}
HISTOGRAMS = {  # their middle value
    "request_duration_seconds": 0.006,
    "feature_age_seconds": 40.0,
    "event_to_sequence_seconds": 0.2,
    "probe_seconds": 0.3,
    "store_write_seconds": 0.02,
    "intake_request_seconds": 0.03,
    "label_maturity_lag_seconds": 0.9,
}
Move = Callable[[float, float], None]
"""Moves a metric: the seconds since the start, and since the last time."""


@contextmanager
def running(port: int) -> Iterator[None]:
    """Serve the metrics on ``port`` of this machine while the block runs."""
    registry = CollectorRegistry()
    moves = [*_gauges(registry), *_counters(registry), *_histograms(registry)]
    stop = threading.Event()

    def move() -> None:
        began = last = time.monotonic()
        while not stop.wait(0.2):
            now = time.monotonic()
            for each in moves:
                each(now - began, now - last)
            last = now

    server, serving = start_http_server(port, "127.0.0.1", registry)
    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        stop.set()
        mover.join()
        server.shutdown()
        server.server_close()
        serving.join()


def _gauges(registry: CollectorRegistry) -> Iterator[Move]:
    def gauge(name: str) -> Gauge:
        return metrics.gauge(f"srp4ctr_{name}", registry)

    for name, value in PLAIN.items():
        gauge(name).set(value)
    for name, value in BY_VERSION.items():
        of_name = gauge(name)
        bound = gauge(f"{name}_bound") if name in BOUNDED else None
        for place, version in enumerate(VERSIONS):
            yield _waves(of_name, bound, version, value * (1 + 0.03 * place))
    gauge("serving_model").labels("v1").set(1)
    gauge("price_per_core_hour").labels("USD").set(0.04)
    gauge("price_per_gpu_hour").labels("USD").set(2.5)
    gauge("consumer_lag_records").labels("srp4ctr-sequences").set(12)
    sources = gauge("source_up")
    for source in ("labels", "triton"):
        sources.labels(source).set(1)
    gates = gauge("refresh_gate_passed")
    for gate in ("auc", "calibration", "latency"):
        gates.labels(gate).set(1)
    _comparison(gauge)
    _bins(gauge)


def _waves(of_name: Gauge, bound: Gauge | None, version: str, value: float) -> Move:
    def move(since_s: float, _: float) -> None:
        now = value * (1 + 0.01 * math.sin(since_s / 9)) if value < 1e6 else value
        of_name.labels(version).set(now)
        if bound is not None:
            bound.labels(version, "low").set(now * 0.97)
            bound.labels(version, "high").set(now * 1.03)

    return move


def _comparison(gauge: Callable[..., Gauge]) -> None:
    pair = ("v2", "v1")
    gauge("click_rate_difference").labels(*pair).set(0.018)
    bound = gauge("click_rate_difference_bound")
    bound.labels(*pair, "low").set(0.004)
    bound.labels(*pair, "high").set(0.032)
    gauge("compared_impressions").labels(*pair).set(2_100)
    gauge("verdict").labels(*pair).set(1)


def _bins(gauge: Callable[..., Gauge]) -> None:
    scores, rates = gauge("calibration_bin_score"), gauge("calibration_bin_click_rate")
    metric, psi = gauge("bundle_metric"), gauge("feature_psi")
    shares = [gauge(name) for name in ("unseen_item_share", "cold_user_share")]
    for place, version in enumerate(VERSIONS):
        for number in range(10):
            score = 0.05 + number / 10
            scores.labels(version, str(number)).set(score)
            rates.labels(version, str(number)).set(min(1, score * (1 - 0.08 * place)))
        for name, value in (
            ("auc", 0.75),
            ("gauc", 0.64),
            ("log_loss", 0.59),
            ("calibration", 1),
        ):
            metric.labels(version, name).set(value)
        for of_name in shares:
            of_name.labels(version, "training").set(0.02)
            of_name.labels(version, "live").set(0.03)
        for feature in ("item_clicks", "user_clicks", "exposures", "hour"):
            psi.labels(version, feature).set(0.01 + 0.02 * len(feature) / 10)


def _counters(registry: CollectorRegistry) -> Iterator[Move]:
    for name, rate in COUNTED.items():
        counter = metrics.counter(f"srp4ctr_{name}", registry)
        for place, version in enumerate(VERSIONS):
            child = counter.labels(version)
            yield lambda _, passed, c=child, r=rate * (1 + 0.2 * place): c.inc(r * passed)  # type: ignore[misc]
    for name, children in LABELLED.items():
        counter = metrics.counter(f"srp4ctr_{name}", registry)
        for place, values in enumerate(children):
            child = counter.labels(*values)
            rate = 20.0 / (place + 1) / (400 if name == "step_seconds_total" else 1)
            yield lambda _, passed, c=child, r=rate: c.inc(r * passed)  # type: ignore[misc]
    # Declared, and nothing counted: a panel says so.
    metrics.counter("srp4ctr_probe_failures_total", registry)


def _histograms(registry: CollectorRegistry) -> Iterator[Move]:
    for name, middle in HISTOGRAMS.items():
        of_name = metrics.histogram(f"srp4ctr_{name}", registry)
        by_version = metrics.METRICS[f"srp4ctr_{name}"].labels
        children = [of_name.labels(v) for v in VERSIONS] if by_version else [of_name]
        for child in children:
            yield lambda since, _, c=child, m=middle: [  # type: ignore[misc]
                c.observe(m * math.exp(math.sin(since * 7 + i * 1.7))) for i in range(6)
            ]
