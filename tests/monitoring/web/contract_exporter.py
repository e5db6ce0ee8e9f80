"""A small real exporter: the monitor's metrics of two versions, moving as under traffic.

v1 serves; v2 is compared with it, ranks better and costs more. Counters grow from the
moment it starts, so that rates are there after a few scrapes.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
)

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
    "training_serving_skew": 0.001,
    "refresh_age_seconds": 640,
    "refresh_interval_seconds": 3600,
    "refresh_duration_seconds": 84,
    "refresh_failed": 0,
    "price_per_gpu_hour": 2.5,
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
LABELLED: dict[tuple[str, ...], tuple[str, list[tuple[str, ...]]]] = {
    ("step", "phase"): (
        "step_seconds_total",
        [(s, p) for s in ("rank_clicks", "click_ranker") for p in ("request", "queue")],
    ),
    ("step",): ("step_runs_total", [("rank_clicks",), ("click_ranker",)]),
    ("ensemble", "outcome"): (
        "served_requests_total",
        [("rank_clicks", "success"), ("rank_clicks", "failure")],
    ),
    ("model_version", "status"): (
        "requests_by_status_total",
        [("v1", "ok"), ("v1", "cold_user"), ("v2", "ok")],
    ),
    ("type",): ("events_total", [("impression",), ("click",), ("behavior",)]),
    ("reason",): ("events_rejected_total", [("not_json",)]),
    ("clicked",): ("labels_total", [("true",), ("false",)]),
}
HISTOGRAMS = {
    "request_duration_seconds": (True, (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1), 0.006),
    "feature_age_seconds": (True, (1, 10, 60, 600, 3600), 40.0),
    "event_to_sequence_seconds": (False, (0.05, 0.1, 0.25, 0.5, 1, 5), 0.2),
    "probe_seconds": (False, (0.1, 0.25, 0.5, 1, 5), 0.3),
    "store_write_seconds": (False, (0.005, 0.01, 0.05, 0.1), 0.02),
    "intake_request_seconds": (False, (0.01, 0.05, 0.1, 1), 0.03),
    "label_maturity_lag_seconds": (False, (0.1, 0.5, 1, 5, 30), 0.9),
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
    def gauge(name: str, *labels: str) -> Gauge:
        return Gauge(f"srp4ctr_{name}", f"About {name}.", labels, registry=registry)

    for name, value in PLAIN.items():
        gauge(name).set(value)
    for name, value in BY_VERSION.items():
        of_name = gauge(name, "model_version")
        bound = (
            gauge(f"{name}_bound", "model_version", "bound") if name in BOUNDED else None
        )
        for place, version in enumerate(VERSIONS):
            yield _waves(of_name, bound, version, value * (1 + 0.03 * place))
    gauge("serving_model", "model_version").labels("v1").set(1)
    gauge("price_per_core_hour", "currency").labels("USD").set(0.04)
    gauge("consumer_lag_records", "group").labels("srp4ctr-sequences").set(12)
    for source in ("labels", "triton"):
        gauge_of = registry._names_to_collectors.get("srp4ctr_source_up")
        (gauge_of or gauge("source_up", "source")).labels(source).set(1)  # type: ignore[attr-defined]
    gates = gauge("refresh_gate_passed", "gate")
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
    names = ("model_version", "baseline")
    gauge("click_rate_difference", *names).labels(*pair).set(0.018)
    bound = gauge("click_rate_difference_bound", *names, "bound")
    bound.labels(*pair, "low").set(0.004)
    bound.labels(*pair, "high").set(0.032)
    gauge("compared_impressions", *names).labels(*pair).set(2_100)
    gauge("verdict", *names).labels(*pair).set(1)


def _bins(gauge: Callable[..., Gauge]) -> None:
    scores = gauge("calibration_bin_score", "model_version", "bin")
    rates = gauge("calibration_bin_click_rate", "model_version", "bin")
    metric = gauge("bundle_metric", "model_version", "metric")
    shares = {
        n: gauge(n, "model_version", "where")
        for n in ("unseen_item_share", "cold_user_share")
    }
    psi = gauge("feature_psi", "model_version", "feature")
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
        for of_name in shares.values():
            of_name.labels(version, "training").set(0.02)
            of_name.labels(version, "live").set(0.03)
        for feature in ("item_clicks", "user_clicks", "exposures", "hour"):
            psi.labels(version, feature).set(0.01 + 0.02 * len(feature) / 10)


def _counters(registry: CollectorRegistry) -> Iterator[Move]:
    for name, rate in COUNTED.items():
        counter = Counter(
            f"srp4ctr_{name}", f"About {name}.", ["model_version"], registry=registry
        )
        for place, version in enumerate(VERSIONS):
            child = counter.labels(version)
            yield lambda _, passed, c=child, r=rate * (1 + 0.2 * place): c.inc(r * passed)  # type: ignore[misc]
    for labels, (name, children) in LABELLED.items():
        counter = Counter(f"srp4ctr_{name}", f"About {name}.", labels, registry=registry)
        for place, values in enumerate(children):
            child = counter.labels(*values)
            rate = 20.0 / (place + 1) / (400 if name == "step_seconds_total" else 1)
            yield lambda _, passed, c=child, r=rate: c.inc(r * passed)  # type: ignore[misc]
    silent = Counter(
        "srp4ctr_probe_failures",
        "Probes that saw no change.",
        ["reason"],
        registry=registry,
    )
    assert silent is not None  # declared, and nothing counted: a panel says so


def _histograms(registry: CollectorRegistry) -> Iterator[Move]:
    for name, (by_version, buckets, middle) in HISTOGRAMS.items():
        labels = ["model_version"] if by_version else []
        of_name = Histogram(
            f"srp4ctr_{name}", f"About {name}.", labels, buckets=buckets, registry=registry
        )
        children = [of_name.labels(v) for v in VERSIONS] if by_version else [of_name]
        for child in children:
            yield lambda since, _, c=child, m=middle: [  # type: ignore[misc]
                c.observe(m * math.exp(math.sin(since * 7 + i * 1.7))) for i in range(6)
            ]
