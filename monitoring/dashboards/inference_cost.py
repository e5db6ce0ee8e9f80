"""Inference cost: price of scores, time per step, and what encoding once saves.

In: counters of Triton and of the serving processes, bundles' cost cards, prices from the
settings. Out: the dashboard for capacity and cost planning.
"""

from srp4ctr.monitoring.dashboards import thresholds
from srp4ctr.monitoring.dashboards.layout import board, line, section
from srp4ctr.monitoring.dashboards.panels import bars, heat, lines, stat
from srp4ctr.monitoring.dashboards.queries import (
    CHOSEN,
    CPU_TIME,
    ENCODER_RUNS,
    MONEY,
    P50,
    P99,
    PRICE,
    REENCODED_PRICE,
    VERSION,
    buckets,
    by_version,
    now,
    of_serving,
    over_time,
    rate,
    rates,
)

_SAVING = thresholds.at_least(1.0, 1.5)
_FLOPS_RATIO = "model_version:srp4ctr_reencode_flops_ratio:rate5m"
_STEPS = "sum by (step) (rate(srp4ctr_step_seconds_total"
_STEP_RUNS = "sum by (step) (rate(srp4ctr_step_runs_total[5m]))"
_CANDIDATES = rate("srp4ctr_scored_candidates_total", "model_version", CHOSEN)
_REQUESTS = rate("srp4ctr_scored_requests_total", "model_version", CHOSEN)
_NO_GPU = "Triton has no GPU here"

_AT_A_GLANCE = line(
    4,
    stat(
        "Saving in FLOPs",
        "FLOPs of re-encoding the history per candidate / FLOPs of encoding once.",
        "short",
        over_time(of_serving(_FLOPS_RATIO)),
        limits=_SAVING,
        decimals=1,
    ),
    stat(
        "Price per million candidates",
        "CPU time of the serving processes at the settings' price, in monitoring.currency.",
        MONEY,
        over_time(of_serving(PRICE)),
        decimals=4,
    ),
    stat(
        "Encoder runs per request",
        "Serving encodes a history once per request, or not at all if it is cached.",
        "none",
        over_time(of_serving(ENCODER_RUNS)),
        limits=thresholds.ENCODER_RUNS,
        decimals=2,
    ),
    stat(
        "Price per core-hour",
        "All prices are based on monitoring.price_per_core_hour, in monitoring.currency.",
        MONEY,
        over_time("max(srp4ctr_price_per_core_hour)"),
        decimals=3,
    ),
)
_ENCODE_ONCE = line(
    8,
    lines(
        "FLOPs per second",
        "What serving computes, and what re-encoding per candidate would compute.",
        "flops",
        rates("srp4ctr_inference_flops_total", "model_version", CHOSEN),
        rates("srp4ctr_reencode_flops_total", "model_version", CHOSEN, "re-encoded"),
        min=0,
    ),
    lines(
        "Price per million candidates",
        "The same in monitoring.currency; re-encoded is an estimate: the price times the "
        "FLOPs ratio.",
        MONEY,
        by_version(PRICE),
        by_version(REENCODED_PRICE, which="re-encoded"),
        min=0,
    ),
    lines(
        "Re-encode / encode once FLOPs",
        "The saving grows with the number of candidates per request.",
        "short",
        by_version(_FLOPS_RATIO),
        limits=_SAVING,
        min=0,
    ),
)
_BY_VERSION = line(
    8,
    lines(
        "CPU time per 1,000 candidates",
        "CPU time of the serving processes, which grows with traffic.",
        "s",
        by_version(CPU_TIME),
        min=0,
    ),
    lines(
        "FLOPs per 1,000 candidates",
        "What a version computes, independent of the machine.",
        "short",
        by_version("model_version:srp4ctr_flops_per_1000_candidates:rate5m"),
        min=0,
    ),
    lines(
        "Encoder runs per request",
        "Above 1, histories are encoded more than once per request.",
        "none",
        by_version(ENCODER_RUNS),
        limits=thresholds.ENCODER_RUNS,
        min=0,
    ),
    lines(
        "Encoder reuse",
        "Share of requests that used a cached encoding of an unchanged history.",
        "percentunit",
        by_version("model_version:srp4ctr_encoder_reuse_share:rate5m"),
        min=0,
    ),
)
_BY_STEP = line(
    8,
    lines(
        "Time by step",
        "Mean time of a step, its queue included: the largest is worth optimising.",
        "s",
        over_time("step:srp4ctr_step_seconds:mean5m", "{{step}}"),
        min=0,
    ),
    lines(
        "Queue time by step",
        "Mean time in a step's queue: if it grows, add serving processes.",
        "s",
        over_time(f'{_STEPS}{{phase="queue"}}[5m])) / ({_STEP_RUNS} > 0)', "{{step}}"),
        min=0,
    ),
    bars(
        "Time by phase, all steps",
        "Seconds per second in the queue, in copying tensors, and in computing.",
        "s",
        now(
            'sum by (phase) (rate(srp4ctr_step_seconds_total{phase!="request"}[5m]))',
            "{{phase}}",
        ),
    ),
    widths=(10, 8, 6),
)
_LATENCY = line(
    9,
    heat(
        "Latency, all requests",
        "Two bands mean two kinds of requests, which a quantile would hide.",
        "s",
        buckets("srp4ctr_request_duration_seconds", CHOSEN),
    ),
    lines(
        "Latency by version",
        "Whether a version is slow for every request (p50) or for a few (p99).",
        "s",
        by_version(P50, which="p50"),
        by_version(P99, which="p99"),
        limits=thresholds.LATENCY,
    ),
    lines(
        "Calls answered natively",
        "Share of the calls of rank_clicks that the native step answers; the Python step "
        "answers the others, for more CPU time.",
        "percentunit",
        by_version("model_version:srp4ctr_native_share:rate5m"),
        min=0,
    ),
)
_SCORED = line(
    8,
    lines(
        "Candidates per second",
        "Scored candidates without padding: the denominator of all prices.",
        "cps",
        over_time(_CANDIDATES, VERSION),
        min=0,
    ),
    lines(
        "Candidates per request",
        "With few candidates per request, the history's encoding is most of the price.",
        "short",
        over_time(f"{_CANDIDATES} / ({_REQUESTS} > 0)", VERSION),
        min=0,
    ),
    lines(
        "Candidates by status",
        "Scored candidates by the status of their item data.",
        "cps",
        rates("srp4ctr_candidates_by_status_total", "status", CHOSEN),
        min=0,
    ),
)
_UNREAD = '{outcome=~"unread_context|unread_attributes|unparsed_item"}'
_NATIVE_CALLS = "sum by (model_version) (rate(srp4ctr_native_calls_total"
_NATIVE = line(
    8,
    lines(
        "Hit rate of the native step",
        "Share of its calls whose context and attributes it can read; for the others the "
        "Python step reads the user's row again.",
        "percentunit",
        over_time(
            f"1 - {_NATIVE_CALLS}{_UNREAD}[5m])) / ({_NATIVE_CALLS}[5m])) > 0)", VERSION
        ),
        min=0,
        max=1,
    ),
    lines(
        "Calls of the native step by outcome",
        "Calls without its answer cost the CPU time of the Python step.",
        "cps",
        rates("srp4ctr_native_calls_total", "outcome", CHOSEN),
        min=0,
    ),
)
_GPUS = line(
    4,
    stat(
        "GPU utilisation",
        "Sum over Triton's GPUs: 1 is one GPU that is always busy.",
        "none",
        over_time("sum(srp4ctr:gpu_seconds:rate5m)"),
        decimals=2,
        noValue=_NO_GPU,
    ),
    stat(
        "GPU power",
        "Power draw of Triton's GPUs, including other processes.",
        "watt",
        over_time("sum(srp4ctr:gpu_energy_joules:rate5m)"),
        noValue=_NO_GPU,
    ),
    stat(
        "GPU price per 1,000 requests",
        "A GPU costs its full hour, busy or idle: monitoring.price_per_gpu_hour, in "
        "monitoring.currency.",
        MONEY,
        over_time("max(srp4ctr:gpu_price_per_1000_requests:rate5m)"),
        decimals=4,
        noValue=_NO_GPU,
    ),
)
BOARD = board(
    "inference_cost",
    "Inference cost",
    "Cost of scoring by version and step, and what encoding once per request saves.",
    section("At a glance: the serving version", _AT_A_GLANCE),
    section("Encode once and re-encode per candidate", _ENCODE_ONCE),
    section("By version", _BY_VERSION),
    section("By step of the ensemble", _BY_STEP),
    section("Latency", _LATENCY),
    section("Candidates", _SCORED),
    section("Native step", _NATIVE),
    section("GPUs, if any", _GPUS),
)
